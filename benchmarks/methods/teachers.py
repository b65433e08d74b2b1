"""The frozen teacher and its maps, shared by the methods that build on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.interface import Images, MethodOptions
from methods.per_image import Features, PerImageFeatures
from qprd.device import make_fabric
from qprd.model.discriminant import moments
from qprd.model.frd import student_scales
from qprd.model.inference import faster_teacher
from qprd.model.lite0_backbone import EFFICIENTNET_LITE0, lite0_backbone
from qprd.model.network import channels_last
from qprd.model.teacher import Teacher, build_teacher

_BATCH = 64


@cache
def shared_teacher(
    name: str, weights: str | None, device: str, *, every_block: bool = False
) -> Teacher:
    """A frozen teacher on a device; the same object for the same arguments.

    Args:
        name: As `build_teacher` takes it.
        weights: A file, or None.
        device: ``auto``, ``cpu``, ``cuda``, ...
        every_block: Whether all blocks of efficientnet_lite0 are maps, from stride 2 to 32.
    """
    file = None if weights is None else Path(weights)
    if every_block and name == EFFICIENTNET_LITE0:
        backbone = lite0_backbone(timm, file, True, maps=(0, 6))
        teacher = Teacher(name, backbone, pretrained=True)
    else:
        teacher = build_teacher(name, weights=file)
    return teacher.to(make_fabric(device, "32").device)


def teacher_of(options: MethodOptions, *, every_block: bool = False) -> Teacher:
    """The teacher that the options name; see `shared_teacher`."""
    return shared_teacher(
        options.teacher, options.teacher_weights, options.device, every_block=every_block
    )


@torch.inference_mode()
def teacher_maps(teacher: Teacher, images: Images) -> Iterator[list[Tensor]]:
    """The maps of consecutive batches of images."""
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).to(teacher.get_buffer("_mean"))
        yield teacher(channels_last(batch / 255))


@cache
def moment_features(
    name: str, weights: str | None, device: str, *, every_block: bool = False
) -> PerImageFeatures:
    """What a discriminant is fitted to, see `qprd.model.discriminant.moments`: (N, features)."""
    teacher = faster_teacher(shared_teacher(name, weights, device, every_block=every_block))

    def compute(images: Images) -> Features:
        pooled = [moments(maps) for maps in teacher_maps(teacher, images)]
        return np.concatenate(pooled).astype(np.float32)

    return PerImageFeatures(compute)


def pooled_features(name: str, weights: str | None, device: str) -> Callable[[Images], Features]:
    """The maps that a student learns, averaged over the patch and concatenated: (N, channels)."""
    teacher = shared_teacher(name, weights, device)
    columns = moment_columns(teacher, student_scales(teacher.strides), squares=False)
    every = moment_features(name, weights, device)
    return lambda images: every(images)[:, columns]


def moment_columns(teacher: Teacher, scales: Sequence[int], *, squares: bool) -> NDArray[np.int64]:
    """Columns of `moment_features` that come from some of the maps, with or without squares."""
    columns, start = [], 0
    for scale, count in enumerate(teacher.channels):
        if scale in scales:
            columns.append(np.arange(start, start + count * (2 if squares else 1)))
        start += 2 * count
    return np.concatenate(columns)
