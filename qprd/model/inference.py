"""Fold the batch norms of trained networks into the convolutions before them.

In evaluation mode ``BN(W x) = (s W) x + (b - s mean)`` with ``s = weight / sqrt(var + eps)``: a
convolution with other weights. Half the passes over memory go away, which is most of what a
network of depthwise convolutions waits for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from qprd.model.depth_maps import DepthMaps
from qprd.model.matrix_convolution import MatrixConvolution, pays
from qprd.model.network import Network
from qprd.model.teacher import Teacher

_Folded = TypeVar("_Folded", Network, Teacher)

#: Edge of the noise that a network is shown to see which convolution feeds which batch norm.
_PROBE_PX = 64
#: Largest difference that folding may make to a map, as a share of the map's largest value.
_TOLERANCE = 1e-4


def for_inference(model: Network) -> Network:
    """Return a copy of a trained model that gives the same maps faster.

    Batch norms are folded wherever the output of a convolution goes into one, the memory layout is
    channels_last, and on a CPU very large kernels are applied as matrix products. Which norms can
    be folded is seen by running the network once, so any backbone will do; if the maps are then
    not those of the model, it stays as it is.

    Args:
        model: Stays as it is but for its mode, evaluation.

    Returns:
        A model on the same device, in evaluation mode, not to be trained.
    """
    return _folded(model.eval())


def faster_teacher(teacher: Teacher) -> Teacher:
    """Return a copy of a teacher that gives the same maps faster; a teacher is never trained.

    It is folded as by `for_inference`. The hash is still that of the weights it was built with.
    """
    return _folded(teacher)


# Not in inference mode: its tensors could take no part in a training or a compiled network.
@torch.no_grad()
def _folded(network: _Folded) -> _Folded:
    device = next(network.parameters()).device
    noise = torch.rand(1, 3, _PROBE_PX, _PROBE_PX, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    shared = _frozen_transformers(network)
    folded = _copied(network, shared)
    pairs, expected = _conv_then_norm(folded, noise)
    for conv, norm in pairs:
        _fold(folded, conv, norm)
    kept = {id(module) for trunk in shared for module in trunk.modules()}
    for name, module in list(folded.named_modules()):
        if id(module) not in kept and pays(module):
            assert isinstance(module, nn.Conv2d)
            _replace(folded, name, MatrixConvolution.of(module))
    if not _alike(_maps(folded, noise), expected):
        folded = _copied(network, shared)
    return folded.requires_grad_(False).to(memory_format=torch.channels_last)


def _frozen_transformers(network: nn.Module) -> list[DepthMaps]:
    """Trunks in which nothing can be folded; some are so large that a copy would not fit."""
    return [
        trunk
        for trunk in network.modules()
        if isinstance(trunk, DepthMaps)
        and not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
    ]


def _copied(network: _Folded, shared: Sequence[DepthMaps]) -> _Folded:
    """A copy that shares some of its parts."""
    return copy.deepcopy(network, {id(trunk): trunk for trunk in shared})


def _maps(network: Network | Teacher, images: Tensor) -> list[Tensor]:
    if isinstance(network, Network):
        return network.score_parts(images)
    maps: list[Tensor] = network(images)
    return maps


def _alike(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(
        bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())
        for a, b in zip(found, expected, strict=True)
    )


def _conv_then_norm(
    network: Network | Teacher, images: Tensor
) -> tuple[list[tuple[str, str]], list[Tensor]]:
    """Return the names of (convolution, batch norm) pairs, and the maps of the network.

    A pair is a convolution that is run once and whose output is the input of the batch norm.
    """
    outputs: list[tuple[str, Tensor]] = []
    inputs: list[tuple[str, Tensor]] = []

    def remember(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle | None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            return module.register_forward_hook(lambda _m, _in, out: outputs.append((name, out)))
        if isinstance(module, nn.BatchNorm2d) and _remainder(module) is not None:
            return module.register_forward_pre_hook(lambda _m, args: inputs.append((name, args[0])))
        return None

    handles = [remember(name, module) for name, module in network.named_modules()]
    maps = [m.clone() for m in _maps(network, images)]
    for handle in handles:
        if handle is not None:
            handle.remove()
    runs = [name for name, _ in outputs]
    by_tensor = {id(out): name for name, out in outputs if runs.count(name) == 1}
    pairs = [(by_tensor[id(x)], norm) for norm, x in inputs if id(x) in by_tensor]
    return pairs, maps


def _remainder(norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return what is left of a batch norm once it is folded, or None if it cannot be folded."""
    if norm.running_mean is None:
        return None
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    # timm's BatchNormAct2d
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    if all(isinstance(part, nn.Module) for part in parts):
        return nn.Sequential(*(part for part in parts if part is not None))
    return None


def _fold(model: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )
    remainder = _remainder(norm)
    assert remainder is not None
    _replace(model, norm_name, remainder.eval())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


@torch.inference_mode()
def bytes_per_px(model: Network) -> float:
    """Measure the peak memory of a forward pass, in bytes for each pixel of the image.

    An estimate on the high side: input and output of the largest layer, twice for what a block
    keeps for its shortcut, and the maps of teacher and student.
    """
    device = next(model.parameters()).device
    largest = 0

    def look(_module: nn.Module, args: tuple[object, ...], out: object) -> None:
        nonlocal largest
        largest = max(largest, sum(t.nbytes for t in (*args, out) if isinstance(t, Tensor)))

    leaves = [module for module in model.modules() if not any(module.children())]
    handles = [module.register_forward_hook(look) for module in leaves]
    maps = _maps(model.eval(), torch.zeros(1, 3, _PROBE_PX, _PROBE_PX, device=device))
    for handle in handles:
        handle.remove()
    return (2 * largest + sum(m.nbytes for m in maps)) / _PROBE_PX**2
