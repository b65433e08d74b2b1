"""Residual blocks and stages shared by the bottleneck and the student.

The ResNet v1.5 blocks (He et al. 2016) with one addition by reverse distillation (Deng & Li 2022,
code ``hq-deng/RD4AD``): a block may also double the resolution, its strided convolutions then
being 2x2 transposed ones.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Resample = Literal["none", "down", "up"]


def _conv3x3(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample == "up":
        return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    stride = 2 if resample == "down" else 1
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample == "none":
        return nn.Identity()
    # ResNet and RD4AD halve with a 1x1 convolution here, FRD's published code with a 3x3 one.
    conv = _conv3x3(in_channels, out_channels, resample)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ResidualBlock(nn.Module):
    """``relu(branch(x) + shortcut(x))``; subclasses say what the branch is."""

    #: Output channels per unit of width.
    expansion: int = 1

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, width * expansion, H', W'), values >= 0."""
        out: Tensor = self.branch(x)
        out += self.shortcut(x)  # in place: these are the largest maps of the network
        activated: Tensor = self.relu(out)
        return activated


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, as in ResNet-18 and -34; ``base_width`` has no meaning here."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        resample: Resample = "none",
        base_width: int = 64,  # noqa: ARG002
    ) -> None:
        branch = nn.Sequential(
            _conv3x3(in_channels, width, resample),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            _conv3x3(width, width, "none"),
            nn.BatchNorm2d(width),
        )
        super().__init__(branch, _shortcut(in_channels, width, resample))


class WideBlock(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions: what ResNet-50 calls a bottleneck block.

    Args:
        in_channels: Channels of the input.
        width: The output has ``4 * width`` channels.
        resample: Whether the 3x3 convolution halves or doubles the resolution.
        base_width: The inner convolutions have ``width * base_width / 64`` channels;
            128 in WideResNet50-2.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        resample: Resample = "none",
        base_width: int = 64,
    ) -> None:
        inner = width * base_width // 64
        out_channels = width * self.expansion
        branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            _conv3x3(inner, inner, resample),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        super().__init__(branch, _shortcut(in_channels, out_channels, resample))


Block = type[BasicBlock] | type[WideBlock]


def residual_stage(
    block: Block, in_channels: int, width: int, count: int, *, resample: Resample, base_width: int
) -> nn.Sequential:
    """``count`` blocks, of which the first one changes resolution and channels."""
    first = block(in_channels, width, resample=resample, base_width=base_width)
    rest = (block(width * block.expansion, width, base_width=base_width) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def initialize(module: nn.Module) -> None:
    """Kaiming initialization in place (He et al. 2015), as the published code does it.

    Convolutions: normal, fan-out, ReLU gain; batch norms: 1 and 0. Transposed convolutions keep
    PyTorch's default (Kaiming uniform, a = sqrt 5): the published code passes them over too.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
