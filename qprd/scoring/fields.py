"""Large fields of a slide that together cover many small windows, each pixel once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

#: A field costs this many pixels beside its own: it has to be read, sent and pooled.
_OVERHEAD_PX = 128 * 128


@dataclass(frozen=True)
class Windows:
    """Squares of one size.

    Attributes:
        x: int, (n,): left edges in pixels, 0 or more.
        y: int, (n,): top edges.
        size: Edge.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    size: int

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, chosen: NDArray[np.int64]) -> Windows:
        """The windows of these indices."""
        return Windows(self.x[chosen], self.y[chosen], self.size)


@dataclass(frozen=True)
class Field:
    """A rectangle, and the windows that it holds wholly or in part.

    Attributes:
        left: First column.
        top: First row.
        right: Column after the last.
        bottom: Row after the last.
        windows: int, (k,): their indices.
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

    def grown(self, halo: int, width: int, height: int) -> Field:
        """With a halo on each side, but not beyond ``width`` and ``height``."""
        return replace(
            self,
            left=max(self.left - halo, 0),
            top=max(self.top - halo, 0),
            right=min(self.right + halo, width),
            bottom=min(self.bottom + halo, height),
        )


def fields_of(windows: Windows, edge: int, unit: int, halo: int) -> list[Field]:
    """Fields that cover all windows, row by row, none larger than need be.

    Bands of rows, equally high and not higher than ``edge``, and in each band columns likewise.
    Rows and columns without windows are left out where they outweigh two halos.

    Args:
        windows: At least one.
        edge: The longest that a field may be, a multiple of ``unit``.
        unit: The edges of a field are multiples of this.
        halo: Pixels read on each side of a field.
    """
    everything = np.arange(len(windows))
    right, bottom = (int(v.max()) + windows.size for v in (windows.x, windows.y))
    return split(Field(0, 0, right, bottom, everything), windows, edge, unit, halo)


def split(field: Field, windows: Windows, edge: int, unit: int, halo: int) -> list[Field]:
    """A field as several smaller ones, that hold what it held.

    Args:
        field: Holds at least one window.
        windows: All that its indices refer to.
        edge: See `fields_of`.
        unit: As before.
        halo: See `fields_of`.
    """
    x, y = windows.x[field.windows], windows.y[field.windows]
    left, top = np.maximum(x, field.left), np.maximum(y, field.top)
    right = np.minimum(x + windows.size, field.right)
    bottom = np.minimum(y + windows.size, field.bottom)
    found = []
    for first_row, last_row in _pieces(top, bottom, edge, unit, halo):
        band = np.flatnonzero((top < last_row) & (bottom > first_row))
        for first, last in _pieces(left[band], right[band], edge, unit, halo):
            own = band[(left[band] < last) & (right[band] > first)]
            if not len(own):  # all of it is a gap
                continue
            found.append(
                Field(
                    left=max(first, int(left[own].min()) // unit * unit),
                    top=max(first_row, int(top[own].min()) // unit * unit),
                    right=min(last, -(-int(right[own].max()) // unit) * unit),
                    bottom=min(last_row, -(-int(bottom[own].max()) // unit) * unit),
                    windows=field.windows[own],
                )
            )
    return found


def cheapest_fields(windows: Windows, edges: Sequence[int], unit: int, halo: int) -> list[Field]:
    """Of fields of several sizes, those with the fewest pixels, halos included.

    Large fields repeat few halos, small ones follow the outline of the tissue.

    Args:
        windows: At least one.
        edges: Of the sizes to choose from, see `fields_of`.
        unit: See `fields_of`.
        halo: Likewise.
    """

    def cost(fields: Sequence[Field]) -> int:
        return sum(
            (f.right - f.left + 2 * halo) * (f.bottom - f.top + 2 * halo) + _OVERHEAD_PX
            for f in fields
        )

    return min((fields_of(windows, edge, unit, halo) for edge in edges), key=cost)


def _pieces(
    starts: NDArray[np.int64], ends: NDArray[np.int64], edge: int, unit: int, halo: int
) -> list[tuple[int, int]]:
    """What intervals cover, in pieces of at most ``edge``; gaps of less than two halos filled."""
    if not len(starts):
        return []
    offset = int(starts.min()) // unit
    first, after = starts // unit - offset, -(-ends // unit) - offset
    length = int(after.max())
    # How many intervals begin at each unit, less how many have ended.
    change = np.bincount(first, minlength=length + 1) - np.bincount(after, minlength=length + 1)
    steps = np.diff(np.cumsum(change) > 0, prepend=False)
    borders = np.flatnonzero(steps)
    gaps = borders[2::2] - borders[1:-1:2]
    wide = gaps * unit >= 2 * halo
    pieces = []
    for begin, end in zip(
        [borders[0], *borders[2::2][wide]], [*borders[1:-1:2][wide], borders[-1]], strict=True
    ):
        count = -(-(end - begin) * unit // edge)
        cuts = ((begin + (end - begin) * np.arange(count + 1) // count) + offset) * unit
        pieces += list(itertools.pairwise(cuts.tolist()))
    return pieces
