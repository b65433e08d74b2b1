"""From teacher and student maps to an anomaly map and a patch score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qprd.config import PatchScore
from qprd.model.loss import map_similarity

#: Standard deviation of the smoothing, in pixels of the patch.
SIGMA_PX = 4.0

#: The largest value of an anomaly map: 1 - cosine is at most 2 at each of three scales.
MAX_ANOMALY = 6.0


def anomaly_map(
    teacher_maps: Sequence[Tensor],
    student_maps: Sequence[Tensor],
    size: tuple[int, int],
    *,
    in_place: bool = False,
) -> Tensor:
    """``A = sum over scales of upsample(1 - cosine at each location)``.

    Args:
        teacher_maps: Three maps (N, C, H, W).
        student_maps: Three maps of the same shapes.
        size: Height and width of the result, normally the patch's.
        in_place: Up-sample such that a location stays in the middle of the pixels it stands for,
            whatever the size; else the corners are aligned, as published, which stretches a patch.

    Returns:
        (N, *size), float32 or wider, 0..6; up-sampled bilinearly, not smoothed.
    """
    total = None
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        distance = 1 - map_similarity(teacher_map, student_map, "location")
        scaled = functional.interpolate(
            distance.unsqueeze(1), size=size, mode="bilinear", align_corners=not in_place
        ).squeeze(1)
        total = scaled if total is None else total + scaled
    if total is None:
        raise ValueError("no maps")
    return total.clamp(0.0, MAX_ANOMALY)


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
    height, width = maps.shape[-2:]
    kernel = _gaussian(sigma, maps.device, maps.dtype)
    radius = len(kernel) // 2
    rows, columns = (_reflected(edge, radius, maps.device) for edge in (height, width))
    return _filtered(maps, kernel, rows, columns)


class Smoothing(nn.Module):
    """`smooth` for square maps of one size, its tables made beforehand.

    They are buffers: what is traced holds no device and goes wherever the module goes.

    Args:
        edge_px: Height and width of the maps.
    """

    def __init__(self, edge_px: int) -> None:
        super().__init__()
        cpu = torch.device("cpu")
        kernel = _gaussian(SIGMA_PX, cpu, torch.float32)
        self.register_buffer("_kernel", kernel, persistent=False)
        reflected = _reflected(edge_px, len(kernel) // 2, cpu)
        self.register_buffer("_reflected", reflected, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (..., edge_px, edge_px), float32, smoothed."""
        reflected = self.get_buffer("_reflected")
        return _filtered(maps, self.get_buffer("_kernel"), reflected, reflected)


def _filtered(maps: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, 1, height, width)
    flat = functional.conv2d(flat.index_select(2, rows), kernel.view(1, 1, -1, 1))
    flat = functional.conv2d(flat.index_select(3, columns), kernel.view(1, 1, 1, -1))
    return flat.reshape(maps.shape)


def _gaussian(sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The kernel, of length 2 * radius + 1 and sum 1."""
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device=device, dtype=dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    return kernel / kernel.sum()


def _reflected(length: int, radius: int, device: torch.device) -> Tensor:
    """Indices -radius..length+radius-1, mirrored back into the map as often as it takes."""
    index = torch.arange(-radius, length + radius, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def patch_score(maps: Tensor, reduction: PatchScore = "mean") -> Tensor:
    """Patch scores (N,), 0..6, of anomaly maps (N, H, W)."""
    if reduction == "mean":
        return maps.mean(dim=(-2, -1))
    return maps.amax(dim=(-2, -1))
