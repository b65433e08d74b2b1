"""ResNets from torchvision, with ImageNet weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from qprd.model.backbone import RANDOM_WEIGHTS, Backbone
from qprd.model.downloads import downloaded, in_torch_cache
from qprd.model.weights import load_strictly, read_state

#: Channels of the maps of each ResNet.
RESNETS: Final = {
    "wide_resnet50_2": (256, 512, 1024),
    "resnet18": (64, 128, 256),
    "resnet34": (64, 128, 256),
    "resnet50": (256, 512, 1024),
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _ResNetTrunk(nn.Module):
    """Stem and first three stages of a torchvision ResNet, under torchvision's names."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.conv1 = resnet.conv1
        self.bn1 = resnet.bn1
        self.relu = resnet.relu
        self.maxpool = resnet.maxpool
        self.layer1 = resnet.layer1
        self.layer2 = resnet.layer2
        self.layer3 = resnet.layer3

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        f1 = self.layer1(x)
        f2 = self.layer2(f1)
        return [f1, f2, self.layer3(f2)]


def resnet_backbone(name: str, weights: Path | None, pretrained: bool) -> Backbone:
    """Build the first three stages of a ResNet; see `qprd.model.teacher.build_teacher`."""
    from torchvision import models

    trunk = _ResNetTrunk(models.get_model(name, weights=None))
    source = RANDOM_WEIGHTS
    if pretrained and weights is not None:
        load_strictly(trunk, read_state(weights), str(weights))
        source = f"file {weights.name}"
    elif pretrained:
        published = models.get_model_weights(name)["IMAGENET1K_V1"]
        load_strictly(trunk, _published_state(name, published), published.url)
        source = f"torchvision {name} IMAGENET1K_V1"
    return Backbone(trunk, RESNETS[name], (4, 8, 16), _MEAN, _STD, source)


def _published_state(name: str, published: Any) -> dict[str, Tensor]:
    """Torchvision's weights from torch's cache, or downloaded into it.

    Raises:
        QprdError: The cached file is damaged, or the download fails.
    """

    def load() -> dict[str, Tensor]:
        state: dict[str, Tensor] = published.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
        return state

    return downloaded(name, load, in_torch_cache(published.url))
