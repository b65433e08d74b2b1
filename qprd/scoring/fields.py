"""Fields: large rectangles of a slide that together cover many small windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qprd.checked import STRIDE_PX

#: What the network is shown around the core of a field, in pixels at the model's resolution.
HALO_PX: Final = 128
#: A field costs as much as this many pixels more: it has to be read, sent and pooled.
_OVERHEAD_PX: Final = 128 * 128


@dataclass(frozen=True)
class Windows:
    """Squares of the size of a patch, in pixels at the model's resolution.

    Attributes:
        x: int, (n,): left edges, 0 or more.
        y: int, (n,): top edges, 0 or more.
        size: Edge of each.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    size: int

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, chosen: NDArray[np.int64]) -> Windows:
        """Take the windows with these indices."""
        return Windows(self.x[chosen], self.y[chosen], self.size)


@dataclass(frozen=True)
class Field:
    """A rectangle in pixels at the model's resolution, and the windows in it.

    Attributes:
        left: First column.
        top: First row.
        right: Column after the last.
        bottom: Row after the last.
        windows: int, (k,): indices of the windows that lie in it wholly or in part.
    """

    left: int
    top: int
    right: int
    bottom: int
    windows: NDArray[np.int64]

    @property
    def edge(self) -> int:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)

    def grown(self, width: int, height: int) -> Field:
        """Add the halo on each side, but nothing beyond ``width`` and ``height``."""
        return replace(
            self,
            left=max(self.left - HALO_PX, 0),
            top=max(self.top - HALO_PX, 0),
            right=min(self.right + HALO_PX, width),
            bottom=min(self.bottom + HALO_PX, height),
        )


def cheapest_fields(windows: Windows, edges_px: Sequence[int]) -> list[Field]:
    """Cover windows with fields of the size that needs the fewest pixels, halos included.

    Large fields repeat few halos, small ones follow the outline of the tissue.

    Args:
        windows: At least one.
        edges_px: The sizes to choose from: the longest that a field may be, multiples of the
            network's stride.
    """

    def cost(fields: Sequence[Field]) -> int:
        return sum(
            (f.right - f.left + 2 * HALO_PX) * (f.bottom - f.top + 2 * HALO_PX) + _OVERHEAD_PX
            for f in fields
        )

    return min((fields_of(windows, edge_px) for edge_px in edges_px), key=cost)


def fields_of(windows: Windows, edge_px: int) -> list[Field]:
    """Cover windows with fields, row by row, none larger than it must be.

    Rows are grouped into bands, equally high and not higher than ``edge_px``, and the columns of
    each band likewise. Rows and columns without windows are left out where they are wider than two
    halos.

    Args:
        windows: At least one.
        edge_px: The longest that a field may be, a multiple of the network's stride.
    """
    everything = np.arange(len(windows))
    right, bottom = (int(v.max()) + windows.size for v in (windows.x, windows.y))
    return split(Field(0, 0, right, bottom, everything), windows, edge_px)


def split(field: Field, windows: Windows, edge_px: int) -> list[Field]:
    """Split a field into smaller ones that hold the same windows."""
    x, y = windows.x[field.windows], windows.y[field.windows]
    left, top = np.maximum(x, field.left), np.maximum(y, field.top)
    right = np.minimum(x + windows.size, field.right)
    bottom = np.minimum(y + windows.size, field.bottom)
    found = []
    for first_row, last_row in _pieces(top, bottom, edge_px):
        band = np.flatnonzero((top < last_row) & (bottom > first_row))
        for first, last in _pieces(left[band], right[band], edge_px):
            own = band[(left[band] < last) & (right[band] > first)]
            if not len(own):  # all of it is a gap
                continue
            found.append(
                Field(
                    left=max(first, int(left[own].min()) // STRIDE_PX * STRIDE_PX),
                    top=max(first_row, int(top[own].min()) // STRIDE_PX * STRIDE_PX),
                    right=min(last, -(-int(right[own].max()) // STRIDE_PX) * STRIDE_PX),
                    bottom=min(last_row, -(-int(bottom[own].max()) // STRIDE_PX) * STRIDE_PX),
                    windows=field.windows[own],
                )
            )
    return found


def _pieces(
    starts: NDArray[np.int64], ends: NDArray[np.int64], edge_px: int
) -> list[tuple[int, int]]:
    """Cut what intervals cover into pieces of at most ``edge_px``; narrow gaps are filled."""
    if not len(starts):
        return []
    offset = int(starts.min()) // STRIDE_PX
    first, after = starts // STRIDE_PX - offset, -(-ends // STRIDE_PX) - offset
    length = int(after.max())
    # How many intervals begin at each stride, less how many have ended.
    change = np.bincount(first, minlength=length + 1) - np.bincount(after, minlength=length + 1)
    steps = np.diff(np.cumsum(change) > 0, prepend=False)
    borders = np.flatnonzero(steps)
    gaps = borders[2::2] - borders[1:-1:2]
    wide = gaps * STRIDE_PX >= 2 * HALO_PX
    pieces = []
    for begin, end in zip(
        [borders[0], *borders[2::2][wide]], [*borders[1:-1:2][wide], borders[-1]], strict=True
    ):
        count = -(-(end - begin) * STRIDE_PX // edge_px)
        cuts = ((begin + (end - begin) * np.arange(count + 1) // count) + offset) * STRIDE_PX
        pieces += list(itertools.pairwise(cuts.tolist()))
    return pieces
