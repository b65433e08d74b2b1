"""A teacher's backbone before it is frozen: what a way to build teachers has to give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import nn

#: Seed of random weights, which are the same ones every time.
RANDOM_SEED: Final = 0
RANDOM_WEIGHTS: Final = f"random (seed {RANDOM_SEED})"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A network that gives maps, and what has to be known to feed it.

    Attributes:
        trunk: From normalized images (N, 3, H, W) to a list of maps (N, C, h, w).
        channels: Channels of each map.
        strides: Pixels of the image that a location of each map stands for; ascending.
        mean: Subtracted from RGB in 0..1.
        std: Divided by after that.
        source: Where the weights come from, in words.
        multiple_px: Edges of images are multiples of this; None is the largest stride.
        sees_all: Whether a location depends on all of the image, as where tokens attend to all
            others. Such a teacher is only shown images of the size of a patch.
        layers: Blocks that the maps come from, counted from 1; empty where there is no choice.
    """

    trunk: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: Triple
    std: Triple
    source: str
    multiple_px: int | None = None
    sees_all: bool = False
    layers: tuple[int, ...] = ()
