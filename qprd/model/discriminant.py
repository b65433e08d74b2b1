"""The model of ``--recipe best``: a discriminant of the teacher's maps, fitted in closed form.

Fisher's discriminant needs the mean of either class and the covariance within the classes. The many
normal patches give the covariance; the few tumor patches only have to give a mean.

Features of a patch are the means over its locations of each channel and of its square. Both commute
with the mean, so that each location contributes ``w . f + v . f^2`` to the score of its patch: the
map of scores costs nothing more.

References:
    Fisher (1936), *The use of multiple measurements in taxonomic problems*.
    Ledoit & Wolf (2004), *A well-conditioned estimator for large-dimensional covariance matrices*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qprd.model.network import Network, channels_last, mean_over_transpositions
from qprd.model.teacher import Teacher

#: Part of the covariance that is replaced by its mean variance, so that directions in which the
#: training patches hardly vary are not taken at their word.
SHRINKAGE = 0.1

#: Power of the covariance: 1 is Fisher's discriminant, 0 the difference of the means. Between them,
#: the noise in the mean of three tumor patches is blown up less.
EXPONENT = 0.75

#: Features that hardly vary over normal patches are not blown up beyond this.
_MIN_STD = 1e-6

#: Patches that are counted in at once: large products are faster than many small ones.
_ROWS = 1024


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


@dataclass(frozen=True)
class LinearClassifier:
    """Decision ``weights . features + intercept``, higher for tumor.

    Attributes:
        weights: (F,).
        intercept: In the unit of the decision.
    """

    weights: NDArray[np.float64]
    intercept: float

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decisions (n,) on features (n, F)."""
        return np.asarray(features @ self.weights + self.intercept, np.float64)


class ClassStatistics:
    """Means of two classes and the covariance within them, gathered batch by batch.

    Memory does not grow with the number of patches.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
        self._origin = np.zeros(0)
        self._counts = np.zeros(2)

    def add(self, features: NDArray[np.float64], y_true: NDArray[np.bool_]) -> None:
        """Count patches in.

        Args:
            features: (n, F).
            y_true: (n,), True for tumor.
        """
        self._pending.append((features, y_true))
        if sum(len(rows) for rows, _ in self._pending) >= _ROWS:
            self._count_in()

    def _count_in(self) -> None:
        """Add what is pending to the sums."""
        if not self._pending:
            return
        features, y_true = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        if not self._origin.size:
            # Near the data, so that sums of squares keep their digits.
            self._origin = features.mean(axis=0)
            n_features = features.shape[1]
            self._sums = np.zeros((2, n_features))
            self._squares_of_normal = np.zeros(n_features)
            self._products = np.zeros((n_features, n_features))
        rows = features - self._origin
        for label, own in enumerate((rows[~y_true], rows[y_true])):
            self._counts[label] += len(own)
            self._sums[label] += own.sum(axis=0)
        self._squares_of_normal += np.square(rows[~y_true]).sum(axis=0)
        self._products += rows.T @ rows

    def discriminant(
        self, *, shrinkage: float = SHRINKAGE, exponent: float = EXPONENT
    ) -> LinearClassifier:
        """Fit a regularized Fisher discriminant; the classes weigh alike whatever their numbers.

        With features standardized over normal patches, C the covariance within the classes, shrunk
        towards its mean variance, and m the class means::

            w = C^-exponent (m_tumor - m_normal)

        scaled so that the mean decision is 0 for normal and 1 for tumor training patches.

        Args:
            shrinkage: 0..1, see `SHRINKAGE`.
            exponent: 0..1, see `EXPONENT`.

        Returns:
            The classifier, for features as given.

        Raises:
            ValueError: one class is missing, or the class means are equal.

        Examples:
            >>> rng = np.random.default_rng(0)
            >>> y_true = np.array([False] * 50 + [True] * 5)
            >>> features = rng.normal(size=(55, 4)) + np.outer(y_true, [3, 0, 0, 0])
            >>> statistics = ClassStatistics()
            >>> statistics.add(features, y_true)
            >>> decisions = statistics.discriminant()(features)
            >>> bool(decisions[y_true].min() > decisions[~y_true].mean())
            True
        """
        self._count_in()
        if not self._counts.all():
            raise ValueError("a discriminant needs patches of both classes")
        means = self._sums / self._counts[:, None]
        variance = self._squares_of_normal / self._counts[0] - means[0] ** 2
        std = np.maximum(np.sqrt(variance.clip(min=0)), _MIN_STD)
        within = self._products - (means.T * self._counts) @ means
        covariance = within / self._counts.sum() / np.outer(std, std)
        gap = (means[1] - means[0]) / std
        variances, directions = np.linalg.eigh(covariance)
        variances = (1 - shrinkage) * variances.clip(min=0) + shrinkage * variances.mean()
        variances = variances.clip(min=np.finfo(np.float64).tiny)
        weights = directions @ (directions.T @ gap * variances**-exponent)
        distance = float(weights @ gap)
        if not np.isfinite(distance) or distance <= np.finfo(np.float64).eps:
            raise ValueError("the class means are equal")
        weights = weights / std / distance
        return LinearClassifier(weights, float(-weights @ (self._origin + means[0])))
