"""From teacher and student maps to an anomaly map and a patch score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qprd.settings import PatchScore

#: Standard deviation of the smoothing, in pixels of the patch.
SIGMA_PX = 4.0

#: Rows of a map that are compared at a time: on a CPU what fits its cache, elsewhere few kernels.
_ROWS_ON_CPU, _ROWS_ELSEWHERE = 16, 256
#: As in PyTorch's cosine: a zero vector is like nothing.
_LEAST_NORM = 1e-8


def anomaly_map(
    teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor], size: tuple[int, int]
) -> Tensor:
    """``A = sum over scales of upsample(1 - cosine at each location)``.

    The corners are aligned, as published, which stretches a patch.

    Args:
        teacher_maps: (N, C, H, W) of each scale.
        student_maps: Maps of the same shapes.
        size: Height and width of the result, normally the patch's.

    Returns:
        (N, *size), float32 or wider, 0 to twice the number of scales, which is 6 in the paper;
        up-sampled bilinearly, not smoothed.
    """
    found = differences(teacher_maps, student_maps)
    return _added_up(found, size, align_corners=True).clamp(0.0, 2.0 * len(found))


def differences(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]) -> list[Tensor]:
    """``1 - cosine`` at each location: (N, H, W) of each scale, float32 or wider, 0..2.

    As `qprd.model.loss.map_similarity` of locations, without products as large as the maps.
    """
    return [
        1 - _cosine(teacher_map, student_map)
        for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True)
    ]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cosine of maps (N, C, H, W) along C, some rows at a time."""
    rows = _ROWS_ON_CPU if a.device.type == "cpu" else _ROWS_ELSEWHERE
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    found = []
    for rows_a, rows_b in zip(torch.split(a, rows, 2), torch.split(b, rows, 2), strict=True):
        x, y = rows_a.to(dtype), rows_b.to(dtype)
        length_x, length_y = (v.square().sum(1).sqrt().clamp_min(_LEAST_NORM) for v in (x, y))
        found.append((x * y).sum(1) / (length_x * length_y))
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def upsampled(locations: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum maps, up-sampled so that each location is at the center of the pixels it stands for.

    Args:
        locations: (N, H, W) of each scale.
        size: Height and width of the result.

    Returns:
        (N, *size); the mean over it is the sum of the maps' means.
    """
    return _added_up(locations, size, align_corners=False)


def _added_up(maps: Sequence[Tensor], size: tuple[int, int], *, align_corners: bool) -> Tensor:
    total = None
    for scores in maps:
        scaled = functional.interpolate(
            scores.unsqueeze(1), size=size, mode="bilinear", align_corners=align_corners
        ).squeeze(1)
        total = scaled if total is None else total + scaled
    if total is None:
        raise ValueError("no maps")
    return total


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


def smooth_last(signals: Tensor, sigma: float = SIGMA_PX) -> Tensor:
    """`smooth` along the last dimension only, of (k, length)."""
    kernel = _gaussian(sigma, signals.device, signals.dtype)
    mirrored = _reflected(signals.shape[-1], len(kernel) // 2, signals.device)
    flat = signals.unsqueeze(1).index_select(2, mirrored)
    return functional.conv1d(flat, kernel.view(1, 1, -1)).squeeze(1)


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
        """Smooth maps (..., edge_px, edge_px), float32."""
        reflected = self.get_buffer("_reflected")
        return _filtered(maps, self.get_buffer("_kernel"), reflected, reflected)


def _filtered(maps: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, 1, height, width)
    flat = functional.conv2d(flat.index_select(2, rows), kernel.view(1, 1, -1, 1))
    flat = functional.conv2d(flat.index_select(3, columns), kernel.view(1, 1, 1, -1))
    return flat.reshape(maps.shape)


def _gaussian(sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the kernel, of length 2 * radius + 1 and sum 1."""
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, device=device, dtype=dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    return kernel / kernel.sum()


def _reflected(length: int, radius: int, device: torch.device) -> Tensor:
    """Return indices -radius..length+radius-1, mirrored into the map as often as needed."""
    index = torch.arange(-radius, length + radius, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def patch_score(maps: Tensor, reduction: PatchScore = "mean") -> Tensor:
    """Return the patch scores (N,) of maps (N, H, W)."""
    if reduction == "mean":
        return maps.mean(dim=(-2, -1))
    return maps.amax(dim=(-2, -1))
