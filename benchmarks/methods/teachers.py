"""The frozen teacher and its maps, shared by the methods that build on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from methods.interface import Images, MethodOptions
from methods.per_image import Features, PerImageFeatures
from qprd.device import make_fabric
from qprd.model.discriminant import moments
from qprd.model.frd import student_scales
from qprd.model.teacher import Teacher, build_teacher

_BATCH = 64


@cache
def shared_teacher(name: str, weights: str | None, device: str) -> Teacher:
    """A frozen teacher on a device; the same object for the same arguments."""
    teacher = build_teacher(name, weights=None if weights is None else Path(weights))
    return teacher.to(make_fabric(device, "32").device)


def teacher_of(options: MethodOptions) -> Teacher:
    """The teacher that the options name."""
    return shared_teacher(options.teacher, options.teacher_weights, options.device)


@torch.inference_mode()
def teacher_maps(teacher: Teacher, images: Images) -> Iterator[list[Tensor]]:
    """The maps of consecutive batches of images."""
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).to(teacher.get_buffer("_mean"))
        yield teacher(batch / 255)


@cache
def pooled_features(name: str, weights: str | None, device: str) -> PerImageFeatures:
    """The maps that a student learns, averaged over the patch and concatenated: (N, channels)."""
    teacher = shared_teacher(name, weights, device)
    scales = student_scales(teacher.strides)

    def compute(images: Images) -> Features:
        pooled = [
            torch.cat([maps[scale].mean((2, 3)) for scale in scales], 1).cpu().numpy()
            for maps in teacher_maps(teacher, images)
        ]
        return np.concatenate(pooled).astype(np.float32)

    return PerImageFeatures(compute)


@cache
def moment_features(name: str, weights: str | None, device: str) -> PerImageFeatures:
    """What a discriminant is fitted to, see `qprd.model.discriminant.moments`: (N, features)."""
    teacher = shared_teacher(name, weights, device)

    def compute(images: Images) -> Features:
        pooled = [moments(maps) for maps in teacher_maps(teacher, images)]
        return np.concatenate(pooled).astype(np.float32)

    return PerImageFeatures(compute)
