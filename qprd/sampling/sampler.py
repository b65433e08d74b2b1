"""Draw random patch positions in a label region, the same on every machine for a seed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from qprd.errors import QprdError
from qprd.sampling.region_index import RegionIndex

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

#: Candidates per batch. Another size would give other patches.
_BATCH = 1024

#: Slides that are drawn from in turns without beginning again: some 100 MB each, if they are large.
_MOST_BEGUN = 16

#: Left, top, right and bottom edge in level-0 pixels.
Bounds = tuple[float, float, float, float]

#: A region counts as full after this many candidates in a row without a patch.
MAX_MISSES = 20_000


def patch_rng(seed: int, *parts: str) -> np.random.Generator:
    """Return a generator of random numbers that depend on a seed and on names alone.

    PCG64 seeded by SHA-256. Sampling only calls ``Generator.random``, the 53 upper bits of the raw
    stream, because the other methods of a Generator may change between numpy versions.
    """
    text = "\0".join([str(seed), *parts])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def iter_patches(
    region: MultiPolygon | RegionIndex,
    tissue: TissueMask | None,
    *,
    size_px: float,
    bounds: Bounds,
    rng: np.random.Generator,
    min_coverage: float,
    max_overlap: float,
    min_tissue: float,
) -> Iterator[tuple[int, int]]:
    """Yield random patch positions in a region until it is full.

    A candidate is a random point of the region at a random place of the patch, so every position
    with some coverage can come up. It becomes a patch if it lies within ``bounds``, has enough
    coverage and tissue (shares, 0..1; without a mask any tissue will do), and overlaps no earlier
    patch too much:
    (s - abs(dx)) * (s - abs(dy)) / s**2 <= ``max_overlap`` for patch edge s, ``size_px``.

    Yields:
        Top-left corners x, y in level-0 pixels.

    Raises:
        QprdError: A patch is smaller than a level-0 pixel.
    """
    if not (np.isfinite(size_px) and size_px >= 1):
        raise QprdError(
            f"A patch would be {size_px:g} level-0 pixels wide, less than one.",
            fix="Use larger patches (--patch-px) or a coarser resolution (--mpp).",
        )
    index = region if isinstance(region, RegionIndex) else RegionIndex(region, size_px)
    x0, y0, x1, y1 = bounds
    if index.area_px2 == 0 or x1 - x0 < size_px or y1 - y0 < size_px:
        return
    accepted = _Accepted(size_px, max_overlap)
    misses = 0
    while misses < MAX_MISSES:
        uniform = rng.random((_BATCH, 5))
        points, usable = index.points(uniform)
        xy = np.floor(points - uniform[:, 3:5] * size_px)
        usable &= (xy >= (x0, y0)).all(axis=1) & (xy + size_px <= (x1, y1)).all(axis=1)
        if tissue is not None and min_tissue > 0:
            rows = np.flatnonzero(usable)
            usable[rows] = tissue.fractions(xy[rows, 0], xy[rows, 1], size_px) >= min_tissue
        rows = np.flatnonzero(usable)
        rows = rows[accepted.leave_room(xy[rows])]
        covered = index.coverage(xy[rows, 0], xy[rows, 1], size_px)
        # Rounding must not refuse a patch that is entirely inside.
        rows = rows[covered >= min_coverage - 1e-9]
        last = -1 - misses
        for row in rows:
            x, y = int(xy[row, 0]), int(xy[row, 1])
            if row - last > MAX_MISSES:
                return
            if accepted.add(x, y):
                last = int(row)
                yield x, y
        misses = _BATCH - 1 - last


class _Accepted:
    """The patches accepted so far, in a spatial hash whose cells are a patch wide."""

    def __init__(self, size_px: float, max_overlap: float) -> None:
        self._size = size_px
        self._max_area = max_overlap * size_px**2 + 1e-9
        self._cells: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(self, x: int, y: int) -> bool:
        """Accept a patch unless it overlaps an earlier one too much; return whether it did."""
        size = self._size
        column, row = int(x // size), int(y // size)
        for i in (column - 1, column, column + 1):
            for j in (row - 1, row, row + 1):
                if self._overlaps(x, y, (i, j)):
                    return False
        self._cells.setdefault((column, row), []).append((x, y))
        return True

    def leave_room(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which candidates overlap no patch of their own cell too much.

        This cheap test comes before that of the coverage.
        """
        size = self._size
        taken = [self._overlaps(x, y, (int(x // size), int(y // size))) for x, y in xy.tolist()]
        return ~np.array(taken, np.bool_)

    def _overlaps(self, x: float, y: float, cell: tuple[int, int]) -> bool:
        """Return whether a patch overlaps one of a cell too much."""
        for other_x, other_y in self._cells.get(cell, ()):
            width, height = self._size - abs(x - other_x), self._size - abs(y - other_y)
            if width > 0 and height > 0 and width * height > self._max_area:
                return True
        return False


def stratify(available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Share out patches equally over slides; what a slide lacks goes to the others.

    Returns:
        Number of patches per slide, with sum min(wanted, all available). If ``wanted`` does not
        divide evenly, the first slides in sorted order get one more.
    """
    quotas = dict.fromkeys(sorted(available), 0)
    left = min(wanted, sum(available.values()))
    while left > 0:
        open_slides = [slide for slide in quotas if quotas[slide] < available[slide]]
        share = max(left // len(open_slides), 1)
        for slide in open_slides:
            more = min(share, available[slide] - quotas[slide], left)
            quotas[slide] += more
            left -= more
    return quotas


def sample_stratified(
    sources: Mapping[str, Callable[[], Iterator[tuple[int, int]]]], wanted: int
) -> dict[str, list[tuple[int, int]]]:
    """Draw patches from slides in the shares of `stratify`, no more than needed from each.

    ``sources`` start drawing from a slide, and give the same patches each time.

    Returns:
        Positions per slide, all there are if these are fewer than ``wanted``.
    """
    taken: dict[str, list[tuple[int, int]]] = {slide: [] for slide in sorted(sources)}
    full: set[str] = set()
    # What has been drawn from is kept for more draws, of a few slides: it takes much memory.
    begun: OrderedDict[str, Iterator[tuple[int, int]]] = OrderedDict()
    while True:
        available = {s: len(taken[s]) if s in full else wanted for s in taken}
        quotas = stratify(available, wanted)
        short = [slide for slide in taken if len(taken[slide]) < quotas[slide]]
        if not short:
            return {slide: taken[slide][: quotas[slide]] for slide in taken}
        for slide in short:
            drawn = begun.pop(slide, None) or islice(sources[slide](), len(taken[slide]), None)
            taken[slide].extend(islice(drawn, quotas[slide] - len(taken[slide])))
            if len(taken[slide]) < quotas[slide]:
                full.add(slide)
                continue
            begun[slide] = drawn
            if len(begun) > _MOST_BEGUN:
                begun.popitem(last=False)
