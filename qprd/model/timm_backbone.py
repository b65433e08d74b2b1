"""Backbones from timm: pyramids of convolutional networks, and transformers at several depths."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn

from qprd.errors import ExitCode, QprdError
from qprd.model.backbone import RANDOM_SEED, Backbone, Triple
from qprd.model.depth_maps import (
    DepthMaps,
    chosen_layers,
    create_any_size,
    has_depths,
    require_maps,
)
from qprd.model.weights import load_strictly

#: Finest and coarsest stride of the maps that are taken of a pyramid.
FINEST, COARSEST = 4, 16

_PROBE_PX: Final = 64
#: What timm's networks raise where they cannot be built or run in the way that was asked for.
_UNFIT: Final = (RuntimeError, AttributeError, AssertionError, ValueError, TypeError)


@dataclass(frozen=True)
class TimmNetwork:
    """A network that timm can build.

    Attributes:
        name: The teacher's, for messages.
        architecture: As timm calls it; one that timm ships.
        arguments: More of timm's.
        mean: Subtracted from RGB in 0..1; None takes what timm knows.
        std: Divided by after that; None takes what timm knows.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mean: Triple | None = None
    std: Triple | None = None


def timm_backbone(
    timm: ModuleType,
    network: TimmNetwork,
    *,
    layers: Sequence[int] | None,
    weights: tuple[Mapping[str, Tensor], str] | Callable[[Callable[[], Any]], Any] | None,
    source: str,
) -> Backbone:
    """Build a backbone from timm.

    Args:
        timm: The module.
        network: What to build.
        layers: Blocks that a transformer's maps are taken after, counted from 1; None chooses.
            They mean nothing to a convolutional network.
        weights: Tensors under timm's names and where they come from; or a function that runs
            timm's download; or None for random weights.
        source: Where they come from, in words.

    Raises:
        QprdError: The network gives no maps, or the weights are those of another one.
    """
    try:
        with torch.device("meta"):
            probe = timm.create_model(
                network.architecture, pretrained=False, features_only=True, **network.arguments
            )
    except _UNFIT as error:
        raise _no_maps(network.name) from error
    if has_depths(probe):
        return _by_depth(timm, network, layers, weights, source)
    reductions = probe.feature_info.reduction()
    indices = tuple(i for i, stride in enumerate(reductions) if FINEST <= stride <= COARSEST)
    if not indices:
        raise _no_maps(network.name)
    options = {"features_only": True, "out_indices": indices, **network.arguments}
    if weights is None:
        trunk = timm.create_model(network.architecture, pretrained=False, **options)
    elif callable(weights):
        trunk = weights(lambda: timm.create_model(network.architecture, pretrained=True, **options))
    else:
        trunk = _loaded_pyramid(timm, network.architecture, options, *weights)
    channels, strides = _maps_of(trunk.eval(), network.name)
    return Backbone(trunk, channels, strides, *_normalization(network, trunk), source)


def _by_depth(
    timm: ModuleType,
    network: TimmNetwork,
    layers: Sequence[int] | None,
    weights: tuple[Mapping[str, Tensor], str] | Callable[[Callable[[], Any]], Any] | None,
    source: str,
) -> Backbone:
    def create(*, pretrained: bool = False) -> nn.Module:
        return create_any_size(timm, network.architecture, network.arguments, pretrained=pretrained)

    model = weights(lambda: create(pretrained=True)) if callable(weights) else create()
    normalization = _normalization(network, model)
    chosen = chosen_layers(model, layers, network.name)
    trunk = DepthMaps(model, chosen)
    if isinstance(weights, tuple):
        state, where = weights
        # timm's own reading of older files; also fits position embeddings to the network's size.
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        try:
            found = dict(state) if convert is None else convert(dict(state), model)
        except (*_UNFIT, KeyError) as error:
            raise _other_weights(network.architecture, where) from error
        load_strictly(model, found, where)
    require_maps(trunk, network.name)
    return Backbone(
        trunk,
        trunk.channels,
        trunk.strides,
        *normalization,
        source,
        multiple_px=1,
        sees_all=True,
        layers=chosen,
    )


def _normalization(network: TimmNetwork, model: Any) -> tuple[Triple, Triple]:
    known = model.pretrained_cfg
    mean, std = network.mean or tuple(known["mean"]), network.std or tuple(known["std"])
    return mean, std


def _loaded_pyramid(
    timm: ModuleType,
    architecture: str,
    options: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: str,
) -> Any:
    """Let timm load tensors, with its renaming of old checkpoints, and check that it did.

    timm passes over what it cannot place and leaves it random; such a tensor is the same as in a
    model of random weights made from the same seed.
    """
    refused = _other_weights(architecture, where)
    try:
        torch.manual_seed(RANDOM_SEED)
        trunk: nn.Module = timm.create_model(
            architecture,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(state)},
            **options,
        )
    except (RuntimeError, KeyError) as error:
        raise refused from error
    torch.manual_seed(RANDOM_SEED)
    untouched: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    random = untouched.state_dict()
    for name, tensor in trunk.state_dict().items():
        if tensor.dim() > 1 and torch.equal(tensor, random[name]):
            raise refused
    return trunk


def _maps_of(trunk: nn.Module, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return channels and strides of the maps by a forward pass, as some models report others."""
    try:
        with torch.no_grad():
            maps = trunk(torch.zeros(1, 3, _PROBE_PX, _PROBE_PX))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _no_maps(name) from error
    strides = []
    for f in maps:
        if f.dim() != 4 or f.shape[2] != f.shape[3] or _PROBE_PX % f.shape[2]:
            raise _no_maps(name)
        strides.append(_PROBE_PX // int(f.shape[2]))
    if strides != sorted(strides):
        raise _no_maps(name)
    return tuple(int(f.shape[1]) for f in maps), tuple(strides)


def _other_weights(architecture: str, where: str) -> QprdError:
    return QprdError(
        f"These are not weights of timm's {architecture}.",
        where=where,
        fix="Check --weights and --teacher.",
    )


def _no_maps(name: str) -> QprdError:
    return QprdError(
        f"{name} gives no feature maps at strides from {FINEST} to {COARSEST} for any patch size.",
        where="--teacher",
        fix="Take another one; qprd teachers lists them.",
        exit_code=ExitCode.USAGE,
    )
