"""Bottleneck and student for maps of one stride, as a plain transformer gives them.

Nothing is coarser than anything else there, so that neither halves nor doubles the grid: the maps
of all depths are squeezed into a few channels, and rebuilt from those by convolutions. That tokens
are dropped at random in training keeps the student from learning to pass on what it is shown, as
in Dinomaly (Guo et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from qprd.model.residual import BasicBlock, initialize, residual_stage

#: Share of the squeezed values that are dropped in training.
_DROPPED: Final = 0.2


class TokenBottleneck(nn.Module):
    """Squeezes maps of one grid into an embedding of the same grid.

    Args:
        channels: Channels of the maps.
        width: Channels of the embedding.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(
            nn.Conv2d(sum(channels), width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(_DROPPED),
        )
        self.embed = BasicBlock(width, width)
        self.out_channels = width
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Embed maps (N, C, h, w): (N, `out_channels`, h, w), values >= 0."""
        embedding: Tensor = self.embed(self.squeeze(torch.cat(list(maps), dim=1)))
        return embedding


class TokenStudent(nn.Module):
    """Rebuilds maps of one grid from an embedding, the deepest first.

    Args:
        in_channels: Channels of the embedding.
        channels: Channels of the maps.
        blocks: Residual blocks before each map.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            residual_stage(
                BasicBlock, in_channels, in_channels, blocks, resample="none", base_width=64
            )
            for _ in channels
        )
        self.project = nn.ModuleList(nn.Conv2d(in_channels, count, 1) for count in channels)
        initialize(self)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """Predict the maps, (N, C, h, w) each, from (N, `in_channels`, h, w)."""
        found: list[Tensor] = []
        for stage, project in zip(reversed(self.stages), reversed(self.project), strict=True):
            embedding = stage(embedding)
            found.insert(0, project(embedding))
        return found
