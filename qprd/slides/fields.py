"""Large fields of a slide that together cover many small windows, each pixel once."""

from __future__ import annotations

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


def fields_of(windows: Windows, edge: int, unit: int) -> list[Field]:
    """Fields that cover all windows, row by row, none larger than need be.

    They are the squares of a grid, shrunk to what the windows take of each.

    Args:
        windows: At least one.
        edge: Of a square of the grid, a multiple of ``unit``.
        unit: The edges of a field are multiples of this.
    """
    rows, columns, index = _touched(windows, edge)
    first = np.flatnonzero(np.diff(rows, prepend=-1) | np.diff(columns, prepend=-1))
    x, y = windows.x[index], windows.y[index]
    left = np.minimum.reduceat(np.maximum(x, columns * edge), first) // unit * unit
    top = np.minimum.reduceat(np.maximum(y, rows * edge), first) // unit * unit
    right = np.maximum.reduceat(np.minimum(x + windows.size, (columns + 1) * edge), first)
    bottom = np.maximum.reduceat(np.minimum(y + windows.size, (rows + 1) * edge), first)
    boxes = np.stack([left, top, -(-right // unit) * unit, -(-bottom // unit) * unit], axis=1)
    return [
        Field(left=box[0], top=box[1], right=box[2], bottom=box[3], windows=own)
        for box, own in zip(boxes.tolist(), np.split(index, first[1:]), strict=True)
    ]


def split(field: Field, windows: Windows, edge: int, unit: int) -> list[Field]:
    """The parts of a field in the squares of a finer grid.

    Args:
        field: From `fields_of` with a multiple of ``edge``.
        windows: All that its indices refer to.
        edge: Of the finer grid.
        unit: As before.
    """
    parts = fields_of(windows.subset(field.windows), edge, unit)
    return [
        replace(part, windows=field.windows[part.windows])
        for part in parts
        if field.left <= part.left < field.right and field.top <= part.top < field.bottom
    ]


def cheapest_fields(windows: Windows, edges: Sequence[int], unit: int, halo: int) -> list[Field]:
    """Of several grids, the fields with the fewest pixels, halos included.

    Large fields repeat few halos, small ones follow the outline of the tissue.

    Args:
        windows: At least one.
        edges: Of the grids to choose from.
        unit: See `fields_of`.
        halo: Pixels read on each side of a field.
    """

    def cost(fields: Sequence[Field]) -> int:
        return sum(
            (f.right - f.left + 2 * halo) * (f.bottom - f.top + 2 * halo) + _OVERHEAD_PX
            for f in fields
        )

    return min((fields_of(windows, edge, unit) for edge in edges), key=cost)


def _touched(
    windows: Windows, edge: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, column and window of each square of a grid that a window touches; row by row."""
    first_row, last_row = windows.y // edge, (windows.y + windows.size - 1) // edge
    first_column, last_column = windows.x // edge, (windows.x + windows.size - 1) // edge
    found = []
    for down in range(int((last_row - first_row).max()) + 1):
        for right in range(int((last_column - first_column).max()) + 1):
            row, column = first_row + down, first_column + right
            index = np.flatnonzero((row <= last_row) & (column <= last_column))
            found.append(np.stack([row[index], column[index], index]))
    rows, columns, index = np.concatenate(found, axis=1)
    order = np.lexsort((index, columns, rows))
    return rows[order], columns[order], index[order]
