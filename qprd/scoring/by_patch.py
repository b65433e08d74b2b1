"""Scores patch by patch, as published: of given patches, and of a whole slide in bounded memory.

`qprd.scoring.by_field` is faster. Its scores are other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.errors import ExitCode, QprdError
from qprd.model.anomaly import patch_score, smooth
from qprd.model.network import Network
from qprd.predictions import ScoreMap
from qprd.progress import Task
from qprd.scoring.cells import ScoreGrid
from qprd.settings import PatchScore
from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Edge, in pixels at the model's resolution, of what is read from a slide in one piece.
_BLOCK_PX = 2048


@torch.inference_mode()
def score_patches(
    model: Network,
    images: NDArray[np.uint8],
    *,
    fabric: Fabric,
    batch_size: int,
    reduction: PatchScore = "mean",
) -> NDArray[np.float32]:
    """Score patches: the mean or the maximum of the smoothed score map of each.

    Args:
        model: It is put into evaluation mode and left there.
        images: (N, 3, H, W) RGB.
        fabric: Where to compute, and in which precision.
        batch_size: Patches per forward pass.
        reduction: How a map becomes a score.

    Returns:
        (N,) raw scores; 0..6 with the recipe ``paper``, of any sign with ``best``.

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


def score_slide_by_patch(
    model: Network,
    slide: Slide,
    grid: ScoreGrid,
    *,
    fabric: Fabric,
    batch_size: int,
    reduction: PatchScore,
    task: Task,
) -> ScoreMap:
    """Score the wanted cells of a slide.

    Patches are cut out of large blocks, so that overlapping patches decode each pixel once. Threads
    read ahead of the network. Memory holds a few blocks and the map.

    Args:
        model: A trained model.
        slide: Read in its QuPath frame.
        grid: From `qprd.scoring.cells.score_grid`.
        fabric: Where to compute, and in which precision.
        batch_size: Patches per forward pass.
        reduction: How the map of a patch becomes its score.
        task: Advanced by the number of cells.

    Returns:
        The score map; NaN in the cells that were not wanted.
    """

    def read(block: tuple[slice, slice]) -> NDArray[np.uint8]:
        rows, columns = block
        x, y = grid.patch_x[columns], grid.patch_y[rows]
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
        rows, columns = block
        x, y = grid.patch_x[columns], grid.patch_y[rows]
        x, y = x - x[0], y - y[0]
        scores = score_map.scores[block]
        cells = np.argwhere(grid.wanted[block])
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


def _blocks(grid: ScoreGrid) -> Iterator[tuple[slice, slice]]:
    """Rectangles of cells whose patches are read from the slide at once, as rows and columns.

    They cover all wanted cells, row by row; those without any are left out.
    """
    edge = max(1, (_BLOCK_PX - grid.patch_px) // grid.stride + 1)
    rows, columns = grid.wanted.shape
    for row in range(0, rows, edge):
        for column in range(0, columns, edge):
            found = np.argwhere(grid.wanted[row : row + edge, column : column + edge])
            if len(found):
                (top, left), (bottom, right) = found.min(axis=0), found.max(axis=0)
                yield (
                    slice(row + int(top), row + int(bottom) + 1),
                    slice(column + int(left), column + int(right) + 1),
                )
