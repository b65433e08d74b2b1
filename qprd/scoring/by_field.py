"""Scores from large fields of a slide: the network sees each pixel about once.

Patch by patch, neighboring patches repeat most of each other's work. Here the network runs over
large overlapping fields, and the score of a window, the square of a patch's size around a cell, is
the mean (or maximum) of the score map over it. Only the core of a field counts; around it lies a
halo of `HALO_PX`, so wide that what is beyond it hardly changes the score of a window.
``tests/scoring/test_by_field.py`` asserts how little, in `test_the_borders_of_fields_do_not_show`.

Fields start at multiples of the network's stride from the slide's corner, so that a pixel always
meets the same phase of the strided convolutions. A field ends where the slide ends, and the
convolutions meet zeros there as they do at the edge of any patch.

These scores rank like those patch by patch, but they are other numbers.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.checked import STRIDE_PX
from qprd.model.anomaly import upsampled
from qprd.model.inference import bytes_per_px
from qprd.model.network import Network
from qprd.predictions import ScoreMap
from qprd.progress import Task
from qprd.scoring.by_patch import require_finite
from qprd.scoring.cells import ScoreGrid
from qprd.scoring.fields import HALO_PX, Field, Windows, cheapest_fields, split
from qprd.scoring.memory import cores_px, free_bytes, out_of_memory
from qprd.scoring.pooling import window_maxima, window_means
from qprd.settings import PatchScore
from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: A network sees far if what changes beyond `HALO_PX` changes the score by more than this share of
#: what it changes within.
_FAR_SHARE: Final = 0.15


def score_slide_by_field(
    model: Network,
    slide: Slide,
    grid: ScoreGrid,
    *,
    fabric: Fabric,
    reduction: PatchScore,
    task: Task,
) -> ScoreMap:
    """Score the wanted cells of a slide as `score_slide_by_patch`, but from large fields."""
    score_map = grid.empty_map()
    rows, columns = np.nonzero(grid.wanted)
    score_map.scores[rows, columns] = score_windows(
        model,
        slide,
        Windows(grid.patch_x[columns], grid.patch_y[rows], grid.patch_px),
        mpp=grid.mpp,
        fabric=fabric,
        reduction=reduction,
        task=task,
    )
    return score_map


@torch.inference_mode()
def score_windows(
    model: Network,
    slide: Slide,
    windows: Windows,
    *,
    mpp: float,
    fabric: Fabric,
    reduction: PatchScore = "mean",
    task: Task,
) -> NDArray[np.float32]:
    """Score windows of a slide from large fields around them.

    Only fields with windows are read. Threads read ahead of the network, and results are fetched
    one field later, so that a device need not wait. Memory holds a few fields and a number for each
    window.

    Args:
        model: Best from `qprd.model.inference.for_inference`; put into evaluation mode.
        slide: It must have a resolution.
        windows: In pixels at ``mpp``, inside the slide unless it is smaller than a window.
        mpp: The model's resolution.
        fabric: Where to compute, and in which precision.
        reduction: Mean or maximum of the smoothed score map over a window.
        task: Advanced by the number of windows.

    Returns:
        (n,) raw scores.

    Raises:
        QprdError: the slide cannot be read, a score is not finite, or the device has not enough
            memory for the smallest field.
    """
    scores = np.zeros(len(windows), np.float32)
    if not len(windows):
        return scores
    if reduction == "max":
        scores.fill(-np.inf)
    model.eval()
    to_level0 = slide.downsample_of(mpp)
    width, height = (
        max(int(length / to_level0), windows.size) for length in (slide.width, slide.height)
    )

    def read(field: Field) -> NDArray[np.uint8]:
        seen = field.grown(width, height)
        pixels = slide.read_region(
            seen.left * to_level0,
            seen.top * to_level0,
            seen.right - seen.left,
            seen.bottom - seen.top,
            mpp,
        )
        # Mirrored up to the network's stride, so that the few pixels beyond the slide are no glass.
        beyond = [(0, -length % STRIDE_PX) for length in pixels.shape[:2]]
        return np.pad(pixels, [*beyond, (0, 0)], mode="symmetric")

    network = _FieldNetwork(model, windows, (width, height), fabric, reduction)
    fields = cheapest_fields(windows, network.cores_px)
    last = np.zeros(len(windows), np.int64)
    for number, field in enumerate(fields):
        last[field.windows] = number
    completed = np.bincount(last, minlength=len(fields))
    computed = (network.parts(field, pixels) for field, pixels in read_ahead(read, fields))
    # Each is fetched once the next one has been begun.
    delayed = (parts for parts, _ in itertools.pairwise(itertools.chain(computed, [[]])))
    for parts, count in zip(delayed, completed.tolist(), strict=True):
        for own, part in parts:
            found = part.cpu().numpy()
            if reduction == "mean":
                scores[own] += found
            else:
                scores[own] = np.maximum(scores[own], found)
        task.advance(count)
    require_finite(scores)
    return scores


#: Indices of windows, and what the core of a field adds to their scores, on the device.
_Part = tuple[NDArray[np.int64], Tensor]


class _FieldNetwork:
    """A model that scores one field after the other, each as large as the memory allows."""

    def __init__(
        self,
        model: Network,
        windows: Windows,
        extent: tuple[int, int],
        fabric: Fabric,
        reduction: PatchScore,
    ) -> None:
        self._model = model
        self._windows = windows
        self._extent = extent
        self._fabric = fabric
        self._reduction = reduction
        weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        #: Edges that cores may have, ascending.
        self.cores_px = cores_px(free_bytes(fabric.device, weights), bytes_per_px(model))

    def parts(self, field: Field, pixels: NDArray[np.uint8]) -> list[_Part]:
        """Compute what a field adds to the scores of its windows.

        If the device runs out of memory, the field is halved, and so are all after it.

        Args:
            field: The core.
            pixels: (H, W, 3), core and halo.

        Raises:
            QprdError: the device has not enough memory for the smallest field.
        """
        if field.edge <= self.cores_px[-1]:
            try:
                return [(field.windows, self._part(field, pixels))]
            except torch.cuda.OutOfMemoryError as error:
                smaller_px = [edge for edge in self.cores_px if edge < field.edge]
                if not smaller_px:
                    raise out_of_memory(self._fabric.device) from error
                self.cores_px = smaller_px
        # Out of the handler, whose traceback would hold on to the memory.
        if self._fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        seen = field.grown(*self._extent)
        found = []
        for smaller in split(field, self._windows, self.cores_px[-1]):
            own = smaller.grown(seen.left + pixels.shape[1], seen.top + pixels.shape[0])
            cut = pixels[own.top - seen.top : own.bottom - seen.top]
            found += self.parts(smaller, cut[:, own.left - seen.left : own.right - seen.left])
        return found

    def _part(self, field: Field, pixels: NDArray[np.uint8]) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(pixels))
        if self._fabric.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self._fabric.device, non_blocking=True).permute(2, 0, 1).unsqueeze(0)
        with self._fabric.autocast():
            locations = self._model.location_scores(batch)
        seen = field.grown(*self._extent)
        # With what was mirrored beyond the slide.
        seen = replace(seen, right=seen.left + pixels.shape[1], bottom=seen.top + pixels.shape[0])
        pooled = window_means if self._reduction == "mean" else window_maxima
        own = self._windows.subset(field.windows)
        return pooled([scores[0] for scores in locations], seen, field, own)


@torch.inference_mode()
def sees_far(model: Network, fabric: Fabric) -> bool:
    """Whether pixels beyond `HALO_PX` change a score, as with squeeze-and-excitation.

    Such a network judges a patch by averages over all that it is shown, so that in a field it would
    judge the same patch differently. This is tried out: the network is shown a patch of noise
    beside another patch, which is noise once and white once.

    Args:
        model: On the device of ``fabric``; put into evaluation mode.
        fabric: Where to compute.
    """
    model.eval()
    edge = 2 * HALO_PX
    noise = np.random.default_rng(0).integers(0, 256, (edge, 2 * edge, 3), dtype=np.uint8)
    noise = np.kron(noise[::8, ::8], np.ones((8, 8, 1), np.uint8))
    beside_white = noise.copy()
    beside_white[:, edge:] = 255
    batch = torch.from_numpy(np.stack([noise, beside_white]).transpose(0, 3, 1, 2))
    with fabric.autocast():
        scores = model.location_scores(batch.to(fabric.device))
    first, second = upsampled(scores, (edge, 2 * edge))
    change = (first - second).abs().mean(dim=0)
    far, near = change[: edge - HALO_PX].mean(), change[edge - HALO_PX : edge].mean()
    return bool(far > _FAR_SHARE * near)
