"""The names of tensors in official files of weights, turned into timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from qprd.known_teachers import Naming

#: Names in the library transformers (ViT, DINOv2 with and without registers) and in timm.
_OF_TRANSFORMERS: Final = (
    (r"embeddings\.(cls_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)", r"\2 \1 \3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\.(\w+)", r"blocks.\1.\2.\3"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (
        r"encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.weights_in)\.(\w+)",
        r"blocks.\1.mlp.fc1.\2",
    ),
    (r"encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.weights_out)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
)
#: TIAToolbox numbers the parts of a ResNet in their order; between them are ReLU and pooling.
_OF_TIATOOLBOX: Final = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        # A model with a head has the network's name before that of each part.
        part = re.sub(r"^\w+\.(?=(embeddings|encoder|layernorm)\.)", "", key)
        for pattern, replacement in _OF_TRANSFORMERS:
            if re.fullmatch(pattern, part):
                found[re.sub(pattern, replacement, part)] = tensor
                break
    for name in [name for name in found if name.startswith("query ")]:
        _, block, leaf = name.split()
        thirds = [found.pop(f"{third} {block} {leaf}", None) for third in ("query", "key", "value")]
        if all(third is not None for third in thirds):
            found[f"blocks.{block}.attn.qkv.{leaf}"] = torch.cat(
                [t for t in thirds if t is not None]
            )
    if "register_tokens" in found and {"cls_token", "pos_embed"} <= set(found):
        # In timm, positions are those of the image's tokens alone.
        positions = found["pos_embed"]
        found["reg_token"] = found.pop("register_tokens")
        found["cls_token"] = found["cls_token"] + positions[:, :1]
        found["pos_embed"] = positions[:, 1:]
    return found


def _from_tiatoolbox(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, tensor in state.items():
        match = re.fullmatch(r"(?:module\.)?feat_extract\.(\d)\.(.+)", key)
        if match and match[1] in _OF_TIATOOLBOX:
            found[f"{_OF_TIATOOLBOX[match[1]]}.{match[2]}"] = tensor
    return found


_RENAMING: Final[Mapping[Naming, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]]] = {
    "timm": dict,
    "transformers": _from_transformers,
    "tiatoolbox": _from_tiatoolbox,
}


def timm_names(state: Mapping[str, Tensor], naming: Naming) -> dict[str, Tensor]:
    """Rename the tensors of a file as timm calls them; those that timm has not are left out.

    A file under timm's own names stays as it is, whatever its `naming` should be: converted copies
    are common.
    """
    converted = any(name in state for name in ("patch_embed.proj.weight", "conv1.weight"))
    return _RENAMING["timm" if converted else naming](state)
