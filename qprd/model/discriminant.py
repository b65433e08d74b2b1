"""The model of ``--recipe best``: linear weights for the teacher's maps and their squares.

Features of a patch are the means over its locations of each channel and of its square. Both commute
with the mean, so that each location contributes ``w . f + v . f^2`` to the score of its patch: the
map of scores costs nothing more. `qprd.model.fisher` learns the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qprd.model.fisher import LinearClassifier
from qprd.model.network import Network, channels_last, mean_over_transpositions
from qprd.model.teacher import Teacher


class Discriminant(Network):
    """A teacher, and weights for the channels of its maps and their squares.

    The score is the mean of those of the image and the transposed image.
    """

    kind = "discriminant"
    trained = ("head",)

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher, teacher.multiple_px)
        self.head = DiscriminantHead(teacher.channels)

    def score_parts(self, images: Tensor) -> list[Tensor]:
        """The teacher's maps; see `Network.score_parts`."""
        self.require_fit(images)
        maps: list[Tensor] = self.teacher(channels_last(images))
        return maps

    def location_scores(self, images: Tensor) -> list[Tensor]:
        """Scores of locations, of any sign; see `Network.location_scores`."""
        upright, transposed = (self.head(self.score_parts(view)) for view in (images, images.mT))
        return mean_over_transpositions(upright, transposed)


class DiscriminantHead(nn.Module):
    """Scores locations: ``w . f + v . f^2`` of each map, and an offset that is added to the first.

    Args:
        channels: Channels of each map.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self._channels = tuple(channels)
        for number, count in enumerate(channels, start=1):
            self.register_buffer(f"linear_{number}", torch.zeros(count))
            self.register_buffer(f"square_{number}", torch.zeros(count))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Score the locations of maps (N, C, h, w): (N, h, w) each, 32 bits or wider."""
        found = []
        for number, f in enumerate(maps, start=1):
            linear, square = (
                self.get_buffer(f"{name}_{number}").view(1, -1, 1, 1)
                for name in ("linear", "square")
            )
            wide = f.to(torch.promote_types(f.dtype, linear.dtype))
            found.append((wide * (wide * square + linear)).sum(1))
        found[0] = found[0] + self.get_buffer("offset")
        return found

    @torch.no_grad()
    def set(self, classifier: LinearClassifier) -> None:
        """Take over a classifier of features as `moments` gives them."""
        start = 0
        for number, count in enumerate(self._channels, start=1):
            for name in ("linear", "square"):
                weights = torch.from_numpy(classifier.weights[start : start + count])
                self.get_buffer(f"{name}_{number}").copy_(weights)
                start += count
        self.get_buffer("offset").fill_(classifier.intercept)


def moments(maps: Sequence[Tensor]) -> NDArray[np.float64]:
    """Pool maps (N, C, h, w): the mean of each channel and of its square, map by map.

    Returns:
        (N, F): twice as many features as there are channels.
    """
    pooled = [power.mean((2, 3)) for f in maps for power in (f.float(), f.float().square())]
    return torch.cat(pooled, 1).cpu().double().numpy()
