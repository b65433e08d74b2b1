"""Scores patch by patch: of given patches, and of a whole slide in bounded memory.

What `qprd.scoring.by_field` does faster, with numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.errors import ExitCode, QprdError
from qprd.model.anomaly import patch_score, smooth
from qprd.model.frd import FRD
from qprd.predictions import ScoreMap
from qprd.progress import Task
from qprd.scoring.cells import cells_in_tissue, tile_grid
from qprd.settings import PatchScore
from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Edge, in pixels at the model's resolution, of what is read from a slide in one piece.
_BLOCK_PX = 2048
#: Cells of the largest score map: 256 MiB of scores.
_MAX_CELLS = 2**26
#: Tiles of one slide: each is an object in memory while the results are written.
MAX_TILES = 2_000_000


@torch.inference_mode()
def score_patches(
    model: FRD,
    images: NDArray[np.uint8],
    *,
    fabric: Fabric,
    batch_size: int,
    reduction: PatchScore = "mean",
) -> NDArray[np.float32]:
    """Patch scores: mean or maximum of the smoothed score map of each patch.

    Args:
        model: In any mode; it is put into evaluation mode and left there.
        images: (N, 3, H, W) RGB.
        fabric: Where to compute and in which precision.
        batch_size: Patches a forward pass.
        reduction: How a map becomes a score.

    Returns:
        (N,) raw scores, 0..6 unless the model is a fused one.

    Raises:
        QprdError: a score is not finite.
    """
    model.eval()
    scores = np.empty(len(images), np.float32)
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        with fabric.autocast():
            maps = model.score_maps(batch.to(fabric.device))
        scores[start : start + len(batch)] = patch_score(smooth(maps), reduction).cpu().numpy()
    require_finite(scores)
    return scores


def require_finite(scores: NDArray[np.float32]) -> None:
    """Refuse scores that are not numbers: NaN would read as "no tissue".

    Raises:
        QprdError: one is not finite.
    """
    if not np.isfinite(scores).all():
        raise QprdError(
            "The network's scores are not finite.",
            fix="Use --precision 32; if that does not help, train again with a lower --lr.",
            exit_code=ExitCode.FAILED,
        )


@dataclass(frozen=True)
class ScoreGrid:
    """Where on a slide scores are computed, and from which patches.

    Each cell is scored by the patch around its center, moved inside the slide where it would reach
    beyond the edge: what lies outside is no tissue, and a model has never seen it.

    Attributes:
        wanted: bool, (rows, columns): cells to score.
        patch_x: int, (columns,): left edges of the patches, pixels at ``mpp``.
        patch_y: int, (rows,): top edges.
        stride: Edge of a cell in pixels at ``mpp``.
        patch_px: Edge of a patch in pixels at ``mpp``.
        mpp: Resolution of the patches.
        slide_mpp: Micrometres per level-0 pixel.
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
        raise QprdError("The slide does not state its resolution.", where=str(slide.path))
    to_level0 = mpp / slide.mpp
    columns, rows = tile_grid(slide.width, slide.height, stride * to_level0)
    if columns * rows > _MAX_CELLS:
        raise QprdError(
            f"The score map would have {columns} x {rows} cells.",
            where=str(slide.path),
            fix=f"Give a larger --stride than {stride}.",
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
            fix=f"Give a larger --stride than {stride}.",
        )
    return ScoreGrid(wanted, patch_x, patch_y, stride, patch_px, mpp, slide.mpp)


def _patch_starts(cells: int, stride: int, patch_px: int, length: float) -> NDArray[np.int64]:
    """First pixel of the patch around each cell's center, inside a slide of this length."""
    centered = np.arange(cells) * stride + (stride - patch_px) // 2
    return np.clip(centered, 0, max(int(length) - patch_px, 0))


def score_slide(
    model: FRD,
    slide: Slide,
    grid: ScoreGrid,
    *,
    fabric: Fabric,
    batch_size: int,
    reduction: PatchScore,
    task: Task,
) -> ScoreMap:
    """Score the wanted cells of a slide.

    Patches are cut out of large blocks, so that overlapping patches decode each pixel once;
    reading runs in threads ahead of the network. Memory is that of a few blocks and the map.

    Args:
        model: A trained model.
        slide: Read in its QuPath frame.
        grid: From `score_grid`.
        fabric: Where to compute.
        batch_size: Patches a forward pass.
        reduction: See `score_patches`.
        task: Advanced by the number of cells.

    Returns:
        The score map; NaN in the cells that were not wanted.
    """

    def read(block: _Block) -> NDArray[np.uint8]:
        x, y = grid.patch_x[block.columns], grid.patch_y[block.rows]
        return slide.read_region(
            x[0] * grid.to_level0,
            y[0] * grid.to_level0,
            int(x[-1] - x[0]) + grid.patch_px,
            int(y[-1] - y[0]) + grid.patch_px,
            grid.mpp,
        )

    model.to(memory_format=torch.channels_last)
    score_map = grid.empty_map()
    size = grid.patch_px
    for block, pixels in read_ahead(read, _blocks(grid)):
        x, y = grid.patch_x[block.columns], grid.patch_y[block.rows]
        x, y = x - x[0], y - y[0]
        scores = score_map.scores[block.rows, block.columns]
        cells = np.argwhere(grid.wanted[block.rows, block.columns])
        for start in range(0, len(cells), batch_size):
            chosen = cells[start : start + batch_size]
            patches = np.stack([pixels[y[r] : y[r] + size, x[c] : x[c] + size] for r, c in chosen])
            scores[chosen[:, 0], chosen[:, 1]] = score_patches(
                model,
                patches.transpose(0, 3, 1, 2),
                fabric=fabric,
                batch_size=batch_size,
                reduction=reduction,
            )
            task.advance(len(chosen))
    return score_map


@dataclass(frozen=True)
class _Block:
    """A rectangle of cells whose patches are read from the slide at once."""

    rows: slice
    columns: slice


def _blocks(grid: ScoreGrid) -> Iterator[_Block]:
    """Rectangles that cover all wanted cells, row by row; those without any are left out."""
    edge = max(1, (_BLOCK_PX - grid.patch_px) // grid.stride + 1)
    rows, columns = grid.wanted.shape
    for row in range(0, rows, edge):
        for column in range(0, columns, edge):
            found = np.argwhere(grid.wanted[row : row + edge, column : column + edge])
            if len(found):
                (top, left), (bottom, right) = found.min(axis=0), found.max(axis=0)
                yield _Block(
                    slice(row + int(top), row + int(bottom) + 1),
                    slice(column + int(left), column + int(right) + 1),
                )
