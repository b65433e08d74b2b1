"""Training in several processes as in one: what a batch has in common, over all of them.

Each process has its part of a batch. The mean of the gradients over the processes is that of the
whole batch if batch norms take mean and variance, and losses their number of terms, over all parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn


def process_count() -> int:
    """Number of processes that compute together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_count(count: Tensor) -> Tensor:
    """The mean of a count over the processes; at least one for all of them together."""
    processes = process_count()
    if processes == 1:
        return count.clamp(min=1)
    total = count.double()
    dist.all_reduce(total)
    return total.clamp(min=1) / processes


def gathered(rows: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The rows of all processes, in their order; None stands for no rows."""
    parts: list[NDArray[np.float64] | None] = [rows]
    if process_count() > 1:
        parts = [None] * process_count()
        dist.all_gather_object(parts, rows)
    return np.concatenate([part for part in parts if part is not None])


def take_from_first(module: nn.Module) -> None:
    """Give the parameters and buffers of a module their values in the first process."""
    for tensor in module.state_dict().values() if process_count() > 1 else ():
        dist.broadcast(tensor, 0)


@contextmanager
def joint_batch_norm(model: nn.Module) -> Iterator[None]:
    """Let the batch norms of a model take mean and variance over the parts of all processes."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    try:
        for norm in norms if process_count() > 1 else ():
            norm.__class__ = _JointBatchNorm
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


class _JointBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of all processes, on any device; a part may be empty.

    PyTorch's SyncBatchNorm needs a GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize maps (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        locations = wide.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])
        totals = all_reduce(torch.cat([wide.sum((0, 2, 3)), locations]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centered = wide - mean.view(1, -1, 1, 1)
        variance = all_reduce(centered.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            momentum = 0.0 if self.momentum is None else self.momentum
            for name, value in (
                ("running_mean", mean),
                ("running_var", variance * count / (count - 1)),
            ):
                self.get_buffer(name).lerp_(value, momentum)
            self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalized: Tensor = centered * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(x.dtype)
