"""Random patch positions in a label region, the same on every machine for a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

from qprd.errors import QprdError
from qprd.sampling.region_index import RegionIndex

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

#: A region counts as full after so many candidates in a row without a new patch.
MAX_FRUITLESS = 20_000

#: Candidates are drawn in batches of a fixed size: another one would give other patches.
_BATCH = 1024

Bounds = tuple[float, float, float, float]


def patch_rng(seed: int, *parts: str) -> np.random.Generator:
    """Random numbers that depend on a seed and on names, and on nothing else.

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
    max_fruitless: int = MAX_FRUITLESS,
) -> Iterator[tuple[int, int]]:
    """Yield random patch positions in a region until it is full.

    A candidate is a random point of the region at a random place of the patch, so every position
    with some coverage can come up. It becomes a patch if it lies within ``bounds``, has enough
    coverage and tissue, and overlaps no earlier patch too much:
    (s - abs(dx)) * (s - abs(dy)) / s**2 <= ``max_overlap`` for patch edge s.

    Args:
        region: Where to sample, level-0 pixels.
        tissue: Tissue mask, or None to ask for no tissue.
        size_px: Edge of a patch in level-0 pixels.
        bounds: x0, y0, x1, y1 that patches must not leave: the image, or a part of it.
        rng: See `patch_rng`.
        min_coverage: area(patch within region) / area(patch), 0..1, at least.
        max_overlap: area(patch within another patch) / area(patch), 0..1, at most.
        min_tissue: Share of tissue in a patch, 0..1, at least.
        max_fruitless: Stop after so many candidates in a row without a patch.

    Yields:
        Top-left corners x, y in level-0 pixels.

    Raises:
        QprdError: A setting is out of range.
    """
    for name, share in (
        ("minimum coverage", min_coverage),
        ("maximum overlap", max_overlap),
        ("minimum tissue", min_tissue),
    ):
        if not 0 <= share <= 1:
            raise QprdError(f"the {name} is {share:g}, not a share between 0 and 1")
    if not (np.isfinite(size_px) and size_px >= 1):
        raise QprdError(f"a patch would be {size_px:g} level-0 pixels wide, less than one")
    index = region if isinstance(region, RegionIndex) else RegionIndex(region, size_px)
    x0, y0, x1, y1 = bounds
    if index.area_px2 == 0 or x1 - x0 < size_px or y1 - y0 < size_px:
        return
    accepted = _Accepted(size_px, max_overlap)
    fruitless = 0
    while fruitless < max_fruitless:
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
        last = -1 - fruitless
        for row in rows:
            x, y = int(xy[row, 0]), int(xy[row, 1])
            if row - last > max_fruitless:
                return
            if accepted.add(x, y):
                last = int(row)
                yield x, y
        fruitless = _BATCH - 1 - last


class _Accepted:
    """Patches so far in a spatial hash whose cells are a patch wide."""

    def __init__(self, size_px: float, max_overlap: float) -> None:
        self._size = size_px
        self._max_area = max_overlap * size_px**2 + 1e-9
        self._cells: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(self, x: int, y: int) -> bool:
        """Take a patch unless it overlaps an earlier one too much."""
        size = self._size
        column, row = int(x // size), int(y // size)
        for i in (column - 1, column, column + 1):
            for j in (row - 1, row, row + 1):
                for other_x, other_y in self._cells.get((i, j), ()):
                    width, height = size - abs(x - other_x), size - abs(y - other_y)
                    if width > 0 and height > 0 and width * height > self._max_area:
                        return False
        self._cells.setdefault((column, row), []).append((x, y))
        return True

    def leave_room(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which candidates overlap no patch of their own cell too much: cheap, before coverage."""
        size, free = self._size, np.ones(len(xy), dtype=bool)
        for k, (x, y) in enumerate(xy.tolist()):
            for other_x, other_y in self._cells.get((int(x // size), int(y // size)), ()):
                width, height = size - abs(x - other_x), size - abs(y - other_y)
                if width > 0 and height > 0 and width * height > self._max_area:
                    free[k] = False
                    break
        return free


def stratify(available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Share out patches over slides: equally, and what a slide lacks goes to the others.

    Args:
        available: Patches that each slide has.
        wanted: Patches in all.

    Returns:
        Patches per slide; they sum to min(wanted, all available). Where ``wanted`` does not divide
        evenly, the slides that come first in sorted order take one more.
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
    sources: Mapping[str, Iterator[tuple[int, int]]], wanted: int
) -> dict[str, list[tuple[int, int]]]:
    """Take patches from slides by `stratify`, drawing no more than needed from any of them.

    Args:
        sources: `iter_patches` of each slide.
        wanted: Patches in all.

    Returns:
        Positions per slide. If they are fewer than ``wanted`` in all, they are all there are.
    """
    taken: dict[str, list[tuple[int, int]]] = {slide: [] for slide in sorted(sources)}
    full: set[str] = set()
    while True:
        available = {s: len(taken[s]) if s in full else wanted for s in taken}
        quotas = stratify(available, wanted)
        short = [slide for slide in taken if len(taken[slide]) < quotas[slide]]
        if not short:
            return {slide: taken[slide][: quotas[slide]] for slide in taken}
        for slide in short:
            taken[slide].extend(islice(sources[slide], quotas[slide] - len(taken[slide])))
            if len(taken[slide]) < quotas[slide]:
                full.add(slide)
