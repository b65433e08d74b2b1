"""Maps of timm's transformers at several depths: ViT, its relatives, Swin and others.

A plain transformer keeps one grid of tokens from the first block to the last, so that what tells
its maps apart is the depth and not the scale. Tokens attend to all others: its maps of an image
depend on all that is shown, whatever the distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from qprd.errors import ExitCode, QprdError

#: Maps that are taken where the user names none.
DEFAULT_DEPTHS: Final = 4
#: Part of a plain transformer that they are evenly spaced over, from the first block on. The last
#: blocks serve what the network was trained for: on lymph node patches, the mean test AUROC with 3
#: to 90 tumor patches was .90 with the 6th of the 12 blocks of DINOv2's ViT-S/14 alone, and .85
#: with the first or the last.
_USEFUL_DEPTH: Final = 2 / 3
#: Coarsest stride that is taken where the user names no maps, if there are finer ones.
_COARSEST_PX: Final = 16
#: Edge of the image that a network is shown to see what maps it gives.
_PROBE_PX: Final = 64
#: Ways in which timm's networks are told to take images of any size.
_ANY_SIZE: Final[Sequence[Mapping[str, bool]]] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)


class DepthMaps(nn.Module):
    """A timm network that gives the maps after some of its blocks, as (N, C, h, w).

    Position embeddings are interpolated for the size of an image. An image whose edges are no
    multiples of the token size is enlarged to the next ones, bilinearly, so that none of it is
    left out: of 128 px on tokens of 14 px, 140 px are made and 10 x 10 tokens.

    Attributes:
        layers: Blocks whose outputs are the maps, counted from 1.
        channels: Of each map.
        strides: Pixels of the image between locations of each map, if its edges are multiples of
            `multiple_px`.
        multiple_px: The token size, or the coarsest stride of a network with several.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        info: Any = model.feature_info
        described = [info[layer - 1] for layer in layers]
        self.layers = tuple(layers)
        self.channels = tuple(int(one["num_chs"]) for one in described)
        self.strides = tuple(int(one["reduction"]) for one in described)
        self.multiple_px = max(self.strides)
        # What comes after the last map is never run.
        prune: Any = getattr(model, "prune_intermediate_layers", None)
        if prune is not None:
            prune([layer - 1 for layer in layers], prune_norm=True)
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (N, 3, H, W)."""
        run: Any = self.model.forward_intermediates
        found: list[Tensor] = run(
            self._enlarged(images),
            indices=[layer - 1 for layer in self.layers],
            norm=False,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return found

    def _enlarged(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = tuple(
            -(-length // self.multiple_px) * self.multiple_px for length in (height, width)
        )
        if size == (height, width):
            return images
        return functional.interpolate(images, size, mode="bilinear", align_corners=False)

    def fix_size(self, edge_px: int) -> None:
        """Interpolate the position embeddings for square images once and for all.

        The maps of such images stay the same; for networks that are exported, as the interpolation
        is no part of ONNX.
        """
        fix: Any = getattr(self.model, "set_input_size", None)
        if fix is not None:
            edge = -(-edge_px // self.multiple_px) * self.multiple_px
            with torch.no_grad():
                fix(img_size=(edge, edge))


def create_any_size(
    timm: Any, architecture: str, arguments: Mapping[str, Any], *, pretrained: bool = False
) -> nn.Module:
    """Create a timm network that takes images of any size.

    Args:
        timm: The module.
        architecture: Name of a network that timm ships.
        arguments: More of timm's.
        pretrained: Whether timm downloads its weights; else they are random.
    """
    for any_size in _ANY_SIZE:
        try:
            made: nn.Module = timm.create_model(
                architecture, pretrained=pretrained, num_classes=0, **arguments, **any_size
            )
        except TypeError:
            if any_size == _ANY_SIZE[-1]:
                raise
        else:
            return made
    raise AssertionError


def chosen_layers(model: nn.Module, layers: Sequence[int] | None, name: str) -> tuple[int, ...]:
    """Check which blocks the maps are taken after, or choose some evenly spaced.

    Of a plain transformer they are chosen among the first two thirds, of a network with several
    strides among those that are not too coarse.

    Args:
        model: From `create_any_size`.
        layers: Counted from 1; None chooses up to `DEFAULT_DEPTHS`.
        name: The teacher's, for the message.

    Raises:
        QprdError: there are fewer blocks, or `layers` are not ascending.
    """
    info: Any = model.feature_info
    count = len(info)
    if layers is None:
        fine = [n for n in range(1, count + 1) if info[n - 1]["reduction"] <= _COARSEST_PX]
        fine = fine or list(range(1, count + 1))
        if len({info[n - 1]["reduction"] for n in fine}) == 1:
            fine = fine[: max(round(count * _USEFUL_DEPTH), 1)]
        taken = min(DEFAULT_DEPTHS, len(fine))
        return tuple(fine[len(fine) * (n + 1) // taken - 1] for n in range(taken))
    if (
        not layers
        or list(layers) != sorted(set(layers))
        or not 1 <= layers[0] <= layers[-1] <= count
    ):
        raise QprdError(
            f"{name} has no such layers: {', '.join(map(str, layers))}.",
            where="--teacher-layers",
            fix=f"Give numbers from 1 to {count}, ascending, such as "
            f"{','.join(map(str, chosen_layers(model, None, name)))}.",
            exit_code=ExitCode.USAGE,
        )
    return tuple(layers)


def has_depths(probe: nn.Module) -> bool:
    """Whether a network from timm's ``features_only`` is no pyramid of maps with channels first.

    Args:
        probe: May be on the meta device.
    """
    info: Any = probe.feature_info
    strides = info.reduction()
    channels_last = str(getattr(probe, "output_fmt", "NCHW")).endswith("NHWC")
    return channels_last or len(set(strides)) < len(strides)


@torch.no_grad()
def require_maps(maps: DepthMaps, name: str) -> None:
    """Refuse a network that cannot be run on images of other sizes than it was trained on.

    Raises:
        QprdError: it cannot.
    """
    edge = -(-_PROBE_PX // maps.multiple_px) * maps.multiple_px
    expected = [
        (1, channels, edge // stride, edge // stride)
        for channels, stride in zip(maps.channels, maps.strides, strict=True)
    ]
    try:
        found = [tuple(f.shape) for f in maps.eval()(torch.zeros(1, 3, edge, edge))]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _fixed_size(name) from error
    if found != expected:
        raise _fixed_size(name)


def _fixed_size(name: str) -> QprdError:
    return QprdError(
        f"{name} gives no feature maps for images of any size.",
        where="--teacher",
        fix="Take another one; qprd teachers lists them.",
        exit_code=ExitCode.USAGE,
    )
