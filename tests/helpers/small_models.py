"""Models with random weights, what qprd says of patches with them, and bundles to go with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.bundle.records import (
    BundleInfo,
    NetworkInfo,
    ScoringInfo,
    TeacherInfo,
    TrainingInfo,
)
from qprd.device import make_fabric
from qprd.evaluation.calibration import Isotonic, Platt
from qprd.model.assembly import MODELS, build_network
from qprd.model.network import Network
from qprd.model.teacher import build_teacher
from qprd.scoring.by_patch import score_patches
from qprd.settings import ModelKind, PatchScore

PATCH_PX = 64


def random_model(
    kind: ModelKind, teacher: str = "resnet18", weights: Path | None = None
) -> Network:
    """Every part of it has a say in the score; without weights the teacher is random, too."""
    frozen = build_teacher(teacher, pretrained=weights is not None, weights=weights)
    model = build_network(MODELS[kind], frozen, 0)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.startswith("head."):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            if name.startswith(("head.linear", "head.square")):
                buffer.sub_(1).mul_(0.002 if kind == "discriminant" else 0.1)
    return model.eval()


def scores_of(
    model: Network, images: NDArray[np.uint8], reduction: PatchScore = "mean"
) -> NDArray[np.float32]:
    """The scores that qprd itself gives."""
    fabric = make_fabric("cpu", "32")
    return score_patches(model, images, fabric=fabric, batch_size=4, reduction=reduction)


def curve_through(
    model: Network, images: NDArray[np.uint8], kind: type[Platt | Isotonic]
) -> Platt | Isotonic:
    """A curve that is steep where the scores of these images are."""
    scores = np.sort(scores_of(model, images).astype(np.float64))
    slope = 4 / float(scores[-1] - scores[0])
    intercept = -slope * float(scores.mean())
    if kind is Platt:
        return Platt(slope, intercept)
    return Isotonic(tuple(scores.tolist()), (0.02, 0.2, 0.2, 0.7, 0.9), slope, intercept)


def bundle_info(model: Network, calibration: Platt | Isotonic | None) -> BundleInfo:
    return BundleInfo(
        name="colon 1",
        network=NetworkInfo(TeacherInfo.of(model.teacher), "paper", model.kind, 0.5, PATCH_PX),
        scoring=ScoringInfo(
            "fields", "mean", None if calibration is None else 1.25, calibration=calibration
        ),
        training=TrainingInfo(
            classes={"tumor": ("Tumor: sub", "Tumor"), "normal": ("Stroma",)},
        ),
    )
