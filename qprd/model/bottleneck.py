"""The one-class bottleneck: the teacher's maps fused into one small embedding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qprd.model.residual import Block, initialize, residual_stage


def _halve(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class OneClassBottleneck(nn.Module):
    """Multi-scale fusion and one-class embedding (Deng & Li 2022, as He & Li 2023 changed it).

    Each map goes through as many 3x3 stride-2 convolutions (+ BN + ReLU) as bring it to the
    coarsest scale: of three, f1 through two, f2 through one, f3 stays as it is. They are
    concatenated, and a residual stage of stride 2 embeds them. The published code also owns a 1x1
    convolution with batch norm (8.4 of 117.6 million parameters with WideResNet50-2) that its
    forward pass never calls; it is left out here, which leaves 109.2 million.

    Args:
        channels: Channels of the teacher's maps, each at twice the stride of the one before.
        widths: Channels of what was brought to the second, third, ... scale.
        block: Block of the residual stage.
        blocks: How many.
        base_width: Width of the blocks, as in `qprd.model.residual.WideBlock`.
        embedding_width: Width of the residual stage.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        widths: Sequence[int],
        block: Block,
        blocks: int,
        base_width: int = 64,
        embedding_width: int = 512,
    ) -> None:
        super().__init__()
        *finer, coarsest = channels
        for scale, count in enumerate(finer):
            steps = [count, *widths[scale:]]
            halvings = [_halve(*step) for step in itertools.pairwise(steps)]
            # A single one stands by itself, as in earlier bundles.
            fuse = halvings[0] if len(halvings) == 1 else nn.Sequential(*halvings)
            self.add_module(f"fuse_{scale + 1}", fuse)
        self._finer = range(1, len(channels))
        self.embed = residual_stage(
            block,
            sum(widths[-1] for _ in finer) + coarsest,
            embedding_width,
            blocks,
            resample="down",
            base_width=base_width,
        )
        self.out_channels = embedding_width * block.expansion
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Embed the teacher's maps.

        Args:
            maps: (N, C, h, w) of each scale, from the finest on.

        Returns:
            (N, `out_channels`, h / 2, w / 2) with h x w the coarsest scale, values >= 0.
        """
        fused = [self.get_submodule(f"fuse_{n}")(maps[n - 1]) for n in self._finer]
        embedding: Tensor = self.embed(torch.cat([*fused, maps[-1]], dim=1))
        return embedding
