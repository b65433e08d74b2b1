"""The one-class bottleneck: three teacher maps fused into one small embedding."""

from __future__ import annotations

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

    f1 goes through two 3x3 stride-2 convolutions (+ BN + ReLU), f2 through one, f3 stays as it is;
    they are concatenated, and a residual stage of stride 2 embeds them. The published code also
    owns a 1x1 convolution with batch norm (8.4 of 117.6 million parameters with WideResNet50-2)
    that its forward pass never calls; it is left out here, which leaves 109.2 million.

    Args:
        channels: Channels of the teacher's maps at strides 4, 8, 16.
        widths: Channels of f1 and f2 once they are at stride 8 and at stride 16.
        block: Block of the residual stage.
        blocks: How many.
        base_width: Width of the blocks, as in `qprd.model.residual.WideBlock`.
        embedding_width: Width of the residual stage.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        widths: tuple[int, int],
        block: Block,
        blocks: int,
        base_width: int = 64,
        embedding_width: int = 512,
    ) -> None:
        super().__init__()
        at_8, at_16 = widths
        self.fuse_1 = nn.Sequential(_halve(channels[0], at_8), _halve(at_8, at_16))
        self.fuse_2 = _halve(channels[1], at_16)
        self.embed = residual_stage(
            block,
            2 * at_16 + channels[2],
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
            maps: f1 (N, C1, H/4, W/4), f2 (N, C2, H/8, W/8), f3 (N, C3, H/16, W/16).

        Returns:
            (N, `out_channels`, H/32, W/32), values >= 0.
        """
        f1, f2, f3 = maps
        fused = torch.cat([self.fuse_1(f1), self.fuse_2(f2), f3], dim=1)
        embedding: Tensor = self.embed(fused)
        return embedding
