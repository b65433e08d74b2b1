"""From teacher and student maps to an anomaly map and a patch score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from qprd.config import PatchScore
from qprd.model.loss import map_similarity

#: Standard deviation of the smoothing, in pixels of the patch.
SIGMA_PX = 4.0

#: The largest value of an anomaly map: 1 - cosine is at most 2 at each of three scales.
MAX_ANOMALY = 6.0


def anomaly_map(
    teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor], size: tuple[int, int]
) -> Tensor:
    """``A = sum over scales of upsample(1 - cosine at each location)``.

    Args:
        teacher_maps: Three maps (N, C, H, W).
        student_maps: Three maps of the same shapes.
        size: Height and width of the result, normally the patch's.

    Returns:
        (N, *size), float32 or wider, 0..6; up-sampled bilinearly with aligned corners, not
        smoothed.
    """
    total = None
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        distance = 1 - map_similarity(teacher_map, student_map, "location")
        scaled = functional.interpolate(
            distance.unsqueeze(1), size=size, mode="bilinear", align_corners=True
        ).squeeze(1)
        total = scaled if total is None else total + scaled
    if total is None:
        raise ValueError("no maps")
    return total.clamp(0, MAX_ANOMALY)


def smooth(maps: Tensor, sigma: float = SIGMA_PX) -> Tensor:
    """Gaussian smoothing, equal to ``scipy.ndimage.gaussian_filter`` with its defaults.

    The kernel ends at 4 sigma; beyond the edge the map is mirrored, the edge pixel repeated
    (scipy's ``reflect``, which is not torch's).

    Args:
        maps: (..., H, W), floating point.
        sigma: Standard deviation in pixels; 0 returns the maps as they are.
    """
    if sigma <= 0:
        return maps
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, 1, height, width)
    flat = flat.index_select(2, _reflected(height, radius, maps.device))
    flat = functional.conv2d(flat, kernel.view(1, 1, -1, 1))
    flat = flat.index_select(3, _reflected(width, radius, maps.device))
    flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1))
    return flat.reshape(maps.shape)


def _reflected(length: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius..length+radius-1, mirrored back into the map as often as it takes."""
    index = torch.arange(-radius, length + radius, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def patch_score(maps: Tensor, reduction: PatchScore = "mean") -> Tensor:
    """Patch scores (N,), 0..6, of anomaly maps (N, H, W)."""
    if reduction == "mean":
        return maps.mean(dim=(-2, -1))
    return maps.amax(dim=(-2, -1))
