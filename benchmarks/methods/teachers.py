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
from qprd.model.teacher import EFFICIENTNET_LITE0, Teacher, build_teacher

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
    """The three maps of consecutive batches of images."""
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).to(teacher.get_buffer("_mean"))
        yield teacher(batch / 255)


@cache
def pooled_features(name: str, weights: str | None, device: str) -> PerImageFeatures:
    """The teacher's maps averaged over the patch and concatenated: (N, C1 + C2 + C3)."""
    teacher = shared_teacher(name, weights, device)

    def compute(images: Images) -> Features:
        pooled = [
            torch.cat([m.mean((2, 3)) for m in maps], 1).cpu().numpy()
            for maps in teacher_maps(teacher, images)
        ]
        return np.concatenate(pooled).astype(np.float32)

    return PerImageFeatures(compute)


@cache
def moment_features(name: str, weights: str | None, device: str) -> PerImageFeatures:
    """Mean and mean square of each channel over the patch: (N, 2 * channels).

    Of ``efficientnet_lite0`` also of the other stage at stride 16, which `Teacher` does not give.
    """
    teacher = shared_teacher(name, weights, device)
    beside: list[Tensor] = []
    if name == EFFICIENTNET_LITE0:
        stage = teacher.get_submodule("trunk.blocks.3")
        stage.register_forward_hook(lambda _module, _inputs, output: beside.append(output))

    def compute(images: Images) -> Features:
        pooled = []
        for maps in teacher_maps(teacher, images):
            found = [*maps, *beside]
            beside.clear()
            moments = [m.mean((2, 3)) for f in found for m in (f, f.square())]
            pooled.append(torch.cat(moments, 1).cpu().numpy())
        return np.concatenate(pooled).astype(np.float32)

    return PerImageFeatures(compute)
