"""Cells: the squares of a score map, which of them are scored, and from which patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.predictions import ScoreMap
from qprd.slides.slide import Slide, grid_size
from qprd.slides.tissue import TissueMask

#: Cells whose tissue is computed at once.
_BLOCK_CELLS = 1_000_000
#: Cells of the largest score map: 256 MiB of scores.
_MAX_CELLS = 2**26
#: Tiles of one slide; each is an object in memory while the results are written.
MAX_TILES = 2_000_000


def cells_in_tissue(
    mask: TissueMask, cell_px: float, columns: int, rows: int, min_tissue: float
) -> NDArray[np.bool_]:
    """Find the cells of a grid that hold enough tissue.

    Args:
        mask: Tissue of the slide.
        cell_px: Edge of a cell in level-0 pixels.
        columns: Number of columns, from `grid_size`.
        rows: Number of rows, from `grid_size`.
        min_tissue: Smallest tissue fraction of a cell, 0..1; a cell without any tissue never
            counts.

    Returns:
        bool, (rows, columns).
    """
    inside = np.zeros((rows, columns), dtype=np.bool_)
    x = np.arange(columns + 1, dtype=np.float64)[None, :] * cell_px
    cell_in_mask_px = (cell_px / mask.downsample) ** 2
    # Sums of a million cells and more are rounded: a millionth of a cell is no tissue.
    least = max(min_tissue - 1e-6, 1e-6) * cell_in_mask_px
    block = max(1, _BLOCK_CELLS // columns)
    for first in range(0, rows, block):
        last = min(rows, first + block)
        y = np.arange(first, last + 1, dtype=np.float64)[:, None] * cell_px
        corners = mask.tissue_above_left(x, y)
        inside[first:last] = np.diff(np.diff(corners, axis=0), axis=1) >= least
    return inside


@dataclass(frozen=True)
class ScoreGrid:
    """The cells of a slide, and the patch that each is scored from.

    A cell is scored from the patch around its center, moved inside the slide where it would reach
    beyond the edge: outside there is no tissue, and a model has never seen it.

    Attributes:
        wanted: bool, (rows, columns): cells to score.
        patch_x: int, (columns,): left edges of the patches in pixels at ``mpp``.
        patch_y: int, (rows,): top edges of the patches in pixels at ``mpp``.
        stride: Edge of a cell in pixels at ``mpp``.
        patch_px: Edge of a patch in pixels at ``mpp``.
        mpp: Resolution of the patches.
        slide_mpp: Micrometers per level-0 pixel.
    """

    wanted: NDArray[np.bool_]
    patch_x: NDArray[np.int64]
    patch_y: NDArray[np.int64]
    stride: int
    patch_px: int
    mpp: float
    slide_mpp: float

    @property
    def to_level0(self) -> float:
        """Level-0 pixels per pixel at ``mpp``."""
        return self.mpp / self.slide_mpp

    def empty_map(self) -> ScoreMap:
        """A score map of this grid, NaN everywhere."""
        scores = np.full(self.wanted.shape, np.nan, np.float32)
        return ScoreMap(scores, 0.0, 0.0, self.stride * self.to_level0, self.slide_mpp)


def score_grid(
    slide: Slide, tissue: TissueMask, *, mpp: float, patch_px: int, stride: int, min_tissue: float
) -> ScoreGrid:
    """Lay a grid over a slide and choose the cells to score.

    Args:
        slide: Must have a resolution.
        tissue: Its tissue mask.
        mpp: The model's resolution.
        patch_px: Edge of a patch in pixels at ``mpp``.
        stride: Edge of a cell in pixels at ``mpp``.
        min_tissue: Least share of tissue in a cell and in its patch, 0..1. As in the training,
            or a model judges patches of a kind it has never seen.

    Raises:
        QprdError: the slide does not state its resolution, or the map would be too large.
    """
    if slide.mpp is None:
        raise QprdError(
            "The slide does not state its resolution.",
            where=str(slide.path),
            fix="Give it with --assume-mpp.",
        )
    to_level0 = mpp / slide.mpp
    columns, rows = grid_size(slide.width, slide.height, stride * to_level0)
    if columns * rows > _MAX_CELLS:
        raise QprdError(
            f"The score map would have {columns} x {rows} cells.",
            where=str(slide.path),
            fix=f"Give a --stride above {stride}.",
        )
    patch_x = _patch_starts(columns, stride, patch_px, slide.width / to_level0)
    patch_y = _patch_starts(rows, stride, patch_px, slide.height / to_level0)
    wanted = cells_in_tissue(tissue, stride * to_level0, columns, rows, min_tissue)
    for row in np.flatnonzero(wanted.any(axis=1)):
        in_row = np.flatnonzero(wanted[row])
        shares = tissue.fractions(
            patch_x[in_row] * to_level0,
            np.full(len(in_row), patch_y[row] * to_level0),
            patch_px * to_level0,
        )
        wanted[row, in_row] = shares >= min_tissue
    if wanted.sum() > MAX_TILES:
        raise QprdError(
            f"There would be {wanted.sum():,} tiles, more than QuPath shows at once.",
            where=str(slide.path),
            fix=f"Give a --stride above {stride}.",
        )
    return ScoreGrid(wanted, patch_x, patch_y, stride, patch_px, mpp, slide.mpp)


def _patch_starts(cells: int, stride: int, patch_px: int, length: float) -> NDArray[np.int64]:
    """First pixel of the patch around each cell's center, inside a slide of this length."""
    centered = np.arange(cells) * stride + (stride - patch_px) // 2
    return np.clip(centered, 0, max(int(length) - patch_px, 0))
