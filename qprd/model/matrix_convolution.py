"""Convolutions with very large weights, as sums of matrix products.

oneDNN brings weights into an order of its own at each call. For a kernel of many channels that is
applied to a small map this takes longer than the products themselves; a matrix product takes them
as they lie.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Weights from which it pays: 32 MiB of them.
_LARGE = 1 << 23


class MatrixConvolution(nn.Conv2d):
    """A convolution, ``y = b + sum over kernel positions (i, j) of  x_ij W_ij'``.

    x_ij are the pixels that position (i, j) of the kernel meets, as rows of channels. What autocast
    computes in fewer bits is left to PyTorch.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> MatrixConvolution:
        """Return the same convolution with the same weights."""
        made = cls.__new__(cls)
        made.__dict__ = conv.__dict__
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Convolve as `torch.nn.Conv2d`; the result has channels last in memory."""
        if torch.is_autocast_enabled(x.device.type) or x.dtype != self.weight.dtype:
            return super().forward(x)
        assert not isinstance(self.padding, str)
        (down, across), (top, left) = self.stride, self.padding
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
        rows = (padded.shape[1] - self.kernel_size[0]) // down + 1
        columns = (padded.shape[2] - self.kernel_size[1]) // across + 1
        total = None
        for i, j in itertools.product(*map(range, self.kernel_size)):
            met = padded[:, i : i + (rows - 1) * down + 1 : down]
            met = met[:, :, j : j + (columns - 1) * across + 1 : across]
            pixels, weight = met.reshape(-1, x.shape[1]), self.weight[:, :, i, j]
            if total is None:
                total = functional.linear(pixels, weight, self.bias)
            else:
                total.addmm_(pixels, weight.t())
        assert total is not None
        return total.view(x.shape[0], rows, columns, -1).permute(0, 3, 1, 2)


def pays(conv: nn.Module) -> bool:
    """Whether this convolution, on the device where it is, is faster as matrix products."""
    return (
        type(conv) is nn.Conv2d
        and conv.weight.device.type == "cpu"
        and conv.weight.numel() >= _LARGE
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )
