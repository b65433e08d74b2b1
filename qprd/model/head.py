"""The head of a student on standardized maps: ``--recipe best`` without tumor patches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from qprd.model.anomaly import differences

#: Channels that hardly vary over normal patches are not blown up beyond this.
_MIN_STD = 1e-3


class StandardizedHead(nn.Module):
    """Standardizes teacher maps, and turns the student's differences from them into scores.

    With f the standardized teacher map and f' the student's of scale n, at each location::

        score = sum over n of  w_n . f_n  +  d_n * (1 - cosine(f_n, f'_n))    + b

    A new head is the plain difference: w = 0, d = 1, b = 0. Bundles of formats 1 to 4 that were
    trained with tumor patches have other values, those of a linear classifier and its weight.

    Args:
        channels: Channels of the teacher's maps, from the finest scale on.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self._scales = range(1, len(channels) + 1)
        for scale, count in zip(self._scales, channels, strict=True):
            self.register_buffer(f"mean_{scale}", torch.zeros(count))
            self.register_buffer(f"std_{scale}", torch.ones(count))
            self.register_buffer(f"linear_{scale}", torch.zeros(count))
        self.register_buffer("difference", torch.ones(len(channels)))
        self.register_buffer("bias", torch.zeros(()))

    def standardize(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """``(f - mean) / std`` channel by channel of maps (N, C, H, W), 32 bits or wider."""
        return [
            (f - self._channels("mean", n)) / self._channels("std", n)
            for n, f in zip(self._scales, maps, strict=True)
        ]

    def location_scores(
        self, teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]
    ) -> list[Tensor]:
        """The terms of the equation.

        Args:
            teacher_maps: Standardized maps (N, C, H, W).
            student_maps: Maps of the same shapes.

        Returns:
            (N, H, W) for each scale, float32 or wider, of any sign; the first with the bias.
        """
        difference = self.get_buffer("difference")
        found = []
        for n, f, distance in zip(
            self._scales, teacher_maps, differences(teacher_maps, student_maps), strict=True
        ):
            linear = (f.to(distance.dtype) * self._channels("linear", n)).sum(1)
            found.append(linear + difference[n - 1] * distance)
        found[0] = found[0] + self.get_buffer("bias")
        return found

    @torch.no_grad()
    def fit_standardization(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take mean and standard deviation of each channel over all locations of normal patches.

        Args:
            batches: The teacher's own maps (N, C, H, W), a batch at a time; read once.

        Raises:
            ValueError: there is no batch.
        """
        locations = [0 for _ in self._scales]
        sums = [self.get_buffer(f"mean_{n}").cpu().double().zero_() for n in self._scales]
        squares = [total.clone() for total in sums]
        for maps in batches:
            for i, f in enumerate(maps):
                wide = f.to("cpu", torch.float64)
                locations[i] += wide.numel() // wide.shape[1]
                sums[i] += wide.sum((0, 2, 3))
                squares[i] += wide.square().sum((0, 2, 3))
        if not all(locations):
            raise ValueError("no maps to standardize over")
        for n, total, square, count in zip(self._scales, sums, squares, locations, strict=True):
            mean = total / count
            variance = (square / count - mean.square()).clamp(min=0)
            self.get_buffer(f"mean_{n}").copy_(mean)
            self.get_buffer(f"std_{n}").copy_(variance.sqrt().clamp(min=_MIN_STD))

    def _channels(self, name: str, scale: int) -> Tensor:
        return self.get_buffer(f"{name}_{scale}").view(1, -1, 1, 1)
