"""The regular grid that covers a slide, and which of its cells hold tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qprd.slides.slide import grid_size
from qprd.slides.tissue import TissueMask

#: Cells whose tissue is computed at once.
_BLOCK_CELLS = 1_000_000


def tile_grid(width: int, height: int, cell_px: float) -> tuple[int, int]:
    """How many cells cover a slide.

    Args:
        width: Of the slide, level-0 pixels.
        height: Likewise.
        cell_px: Edge of a cell in level-0 pixels.

    Returns:
        (columns, rows); cell (r, c) starts at (c * cell_px, r * cell_px), and the last ones may
        reach beyond the slide.
    """
    if not cell_px > 0:
        raise ValueError(f"cell_px must be positive, not {cell_px}")
    return grid_size(width, height, cell_px)


def cells_in_tissue(
    mask: TissueMask, cell_px: float, columns: int, rows: int, min_tissue: float
) -> NDArray[np.bool_]:
    """Which cells of a grid hold enough tissue.

    Args:
        mask: Tissue of the slide.
        cell_px: Edge of a cell in level-0 pixels.
        columns: From `tile_grid`.
        rows: Likewise.
        min_tissue: Smallest tissue fraction of a cell, 0..1; a cell without any tissue never
            counts.

    Returns:
        bool, (rows, columns).
    """
    inside = np.zeros((rows, columns), dtype=np.bool_)
    x = np.arange(columns + 1, dtype=np.float64)[None, :] * cell_px
    cell_in_mask_px = (cell_px / mask.downsample) ** 2
    # Sums of a million cells and more are rounded: half a millionth of a cell is no tissue.
    least = max(min_tissue - 1e-6, 1e-6) * cell_in_mask_px
    block = max(1, _BLOCK_CELLS // columns)
    for first in range(0, rows, block):
        last = min(rows, first + block)
        y = np.arange(first, last + 1, dtype=np.float64)[:, None] * cell_px
        corners = mask.tissue_above_left(x, y)
        inside[first:last] = np.diff(np.diff(corners, axis=0), axis=1) >= least
    return inside
