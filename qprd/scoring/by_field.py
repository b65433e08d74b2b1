"""Scores from large fields of a slide: the network sees each pixel about once.

A patch by itself ends where its convolutions meet zeros, and neighboring patches repeat most of
each other's work. Here the network runs over large overlapping fields, and the score of a window is
the mean (or maximum) of the score map over it. Of each field only the core counts; around it lies
a halo of `HALO_PX`, so wide that what is beyond does not tell in the score of a patch. How little
it does is asserted by ``tests/scoring/test_by_field.py``, `test_the_borders_of_fields_do_not_show`.

Fields start at multiples of the network's stride from the slide's corner, so that the same pixel
always meets the same phase of the strided convolutions. Where the slide ends, so does the field,
and the convolutions meet zeros as they do at the edge of any patch.

Both kinds of scores rank alike but are not the same numbers: threshold and calibration are fitted
for each by itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.checked import STRIDE_PX
from qprd.errors import ExitCode, QprdError
from qprd.model.anomaly import upsampled
from qprd.model.frd import FRD
from qprd.model.inference import bytes_per_px
from qprd.predictions import ScoreMap
from qprd.progress import Task
from qprd.scoring.by_patch import ScoreGrid, require_finite
from qprd.scoring.fields import Field, Windows, cheapest_fields, split
from qprd.scoring.pooling import window_maxima, window_means
from qprd.settings import PatchScore
from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: What is shown to the network around the core of a field, in pixels at the model's resolution.
HALO_PX: Final = 128
#: Edges that the largest core which fits may have; it may be halved three times.
_CORE_PX: Final = (256, 2048)
_HALVINGS: Final = 3

#: A network is said to see far if what changes beyond `HALO_PX` changes the score by more than this
#: share of what it changes within.
_MOST_FROM_AFAR = 0.15

#: Share of the device's free memory that a field may take.
_SHARE = 0.5
#: Bytes of a machine's memory for weights and fields; larger fields are hardly faster there.
_MOST_ON_CPU = 7 << 29


def score_slide_densely(
    model: FRD,
    slide: Slide,
    grid: ScoreGrid,
    *,
    fabric: Fabric,
    reduction: PatchScore,
    task: Task,
) -> ScoreMap:
    """Score the wanted cells of a slide; see `score_windows`.

    Args:
        model: A trained model.
        slide: Read in its QuPath frame.
        grid: From `qprd.scoring.by_patch.score_grid`.
        fabric: Where to compute.
        reduction: See `score_windows`.
        task: Advanced by the number of cells.

    Returns:
        The score map; NaN in the cells that were not wanted.
    """
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
    model: FRD,
    slide: Slide,
    windows: Windows,
    *,
    mpp: float,
    fabric: Fabric,
    reduction: PatchScore = "mean",
    task: Task,
) -> NDArray[np.float32]:
    """Scores of patches of a slide, from the map of large fields around them.

    Only fields with windows are read. Reading runs in threads ahead of the network, and results
    are fetched one field later, so that a device need not wait. Memory is that of a few fields
    and a number for each window.

    Args:
        model: Best from `qprd.model.inference.for_inference`; put into evaluation mode.
        slide: Must have a resolution.
        windows: In pixels at ``mpp``, inside the slide unless it is smaller than one of them.
        mpp: The model's resolution.
        fabric: Where to compute and in which precision.
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
        seen = field.grown(HALO_PX, width, height)
        pixels = slide.read_region(
            seen.left * to_level0,
            seen.top * to_level0,
            seen.right - seen.left,
            seen.bottom - seen.top,
            mpp,
        )
        # Mirrored up to the network's stride: the few pixels beyond the slide are no glass.
        beyond = [(0, -length % STRIDE_PX) for length in pixels.shape[:2]]
        return np.pad(pixels, [*beyond, (0, 0)], mode="symmetric")

    network = _Network(model, windows, (width, height), fabric, reduction)
    fields = cheapest_fields(windows, network.cores_px, STRIDE_PX, HALO_PX)
    last = np.zeros(len(windows), np.int64)
    for number, field in enumerate(fields):
        last[field.windows] = number
    completed = np.bincount(last, minlength=len(fields))
    computed = (network.parts(field, pixels) for field, pixels in read_ahead(read, fields))
    for parts, count in zip(_one_later(computed), completed.tolist(), strict=True):
        for own, part in parts:
            found = part.cpu().numpy()
            if reduction == "mean":
                scores[own] += found
            else:
                scores[own] = np.maximum(scores[own], found)
        task.advance(count)
    require_finite(scores)
    return scores


#: Indices of windows, and on the device what the core of a field adds to their scores.
_Part = tuple[NDArray[np.int64], Tensor]


class _Network:
    """A model at work on one field after the other, each as large as the memory allows."""

    def __init__(
        self,
        model: FRD,
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
        """What a field adds to the scores of its windows.

        Where the device runs out of memory the field is halved, and so are all after it.

        Args:
            field: Its core.
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
                    raise _too_small(self._fabric.device) from error
                self.cores_px = smaller_px
        # Out of the handler, whose traceback would hold on to the memory.
        if self._fabric.device.type == "cuda":
            torch.cuda.empty_cache()
        seen = field.grown(HALO_PX, *self._extent)
        found = []
        for smaller in split(field, self._windows, self.cores_px[-1], STRIDE_PX, HALO_PX):
            own = smaller.grown(HALO_PX, seen.left + pixels.shape[1], seen.top + pixels.shape[0])
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
        seen = field.grown(HALO_PX, *self._extent)
        # With what was mirrored beyond the slide.
        seen = replace(seen, right=seen.left + pixels.shape[1], bottom=seen.top + pixels.shape[0])
        pooled = window_means if self._reduction == "mean" else window_maxima
        own = self._windows.subset(field.windows)
        return pooled([scores[0] for scores in locations], seen, field, own)


def _one_later(items: Iterator[list[_Part]]) -> Iterator[list[_Part]]:
    """The same, each when the next one has been made."""
    previous: list[_Part] | None = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous


def cores_px(free: int, per_px: float) -> list[int]:
    """Edges that cores may have, ascending: the largest whose field fits, and about its halves.

    Args:
        free: Memory at hand, bytes.
        per_px: What the network needs, bytes a pixel.
    """
    least, most = _CORE_PX
    edge = math.sqrt(free * _SHARE / per_px) - 2 * HALO_PX
    largest = int(min(max(edge, least), most))
    return [(largest >> halvings) // STRIDE_PX * STRIDE_PX for halvings in range(_HALVINGS, -1, -1)]


def free_bytes(device: torch.device, weights: int) -> int:
    """Memory at hand: what nobody uses of a device; of a machine's at most `_MOST_ON_CPU`.

    Args:
        device: Where the network is.
        weights: Bytes of the network, which a machine's share holds too.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        unused = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows and macOS do not say
        unused = _MOST_ON_CPU
    return max(min(unused, _MOST_ON_CPU - weights), 0)


def _too_small(device: torch.device) -> QprdError:
    return QprdError(
        f"The memory of {device} is too small for the network, even for a small field.",
        where="--device",
        fix="End what else uses it, or use --device cpu.",
        exit_code=ExitCode.FAILED,
    )


@torch.inference_mode()
def sees_far(model: FRD, fabric: Fabric) -> bool:
    """Whether what is beyond `HALO_PX` tells in a score, as with squeeze-and-excitation.

    Such a network judges a patch by averages over all that it is shown: shown a field, it would
    say something else of the patch. Tried out: a patch of noise is shown with another patch, once
    noise and once white, at its side.

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
    return bool(far > _MOST_FROM_AFAR * near)
