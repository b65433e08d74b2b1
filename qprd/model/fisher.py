"""Fisher's discriminant, regularized, in closed form; and what any other head has to offer.

The discriminant needs the mean of either class and the covariance within the classes. The many
normal patches give the covariance; the few tumor patches only have to give a mean.

References:
    Fisher (1936), *The use of multiple measurements in taxonomic problems*.
    Chan, Golub & LeVeque (1983), *Algorithms for computing the sample variance*.
    Ledoit & Wolf (2004), *A well-conditioned estimator for large-dimensional covariance matrices*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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

#: Most features whose covariance is kept as a matrix: decomposing 4096 takes seconds.
_MATRIX_FEATURES = 4096

#: Directions in which the covariance of more features is known; the mean variance of all others
#: stands for them. Nothing is left out where patches and their symmetries are less than twice this.
_DIRECTIONS = 2048


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


class Head(Protocol):
    """Learns a `LinearClassifier` of pooled features from batches of training patches."""

    def add(self, features: NDArray[np.float64], y_true: NDArray[np.bool_]) -> None:
        """Take in a batch.

        Args:
            features: (n, F), from `qprd.model.discriminant.moments`. With augmentation all patches
                come eight times, turned, in the same order.
            y_true: (n,), True for tumor.
        """
        ...

    def classifier(self) -> LinearClassifier:
        """Fit to all batches.

        Raises:
            ValueError: The classes cannot be told apart.
        """
        ...


class ClassStatistics:
    """The head of ``--recipe best``: a discriminant of the statistics of two classes.

    The means of the classes and the covariance within them are gathered batch by batch, so that
    memory does not grow with the number of patches.
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
        """Add what is pending to the statistics."""
        if not self._pending:
            return
        features, y_true = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        if not self._origin.size:
            # Sums are taken near the data and in about its unit, so that they keep their digits.
            self._origin = features.mean(axis=0)
            self._unit = np.maximum(features.std(axis=0), _MIN_STD)
            n_features = features.shape[1]
            self._means = np.zeros((2, n_features))
            self._squares = np.zeros((2, n_features))
            self._scatter = _Scatter(n_features)
        rows = (features - self._origin) / self._unit
        for label, own in enumerate((rows[~y_true], rows[y_true])):
            if not len(own):
                continue
            before, count = self._counts[label], len(own)
            step = own.mean(axis=0) - self._means[label]
            # The scatter of all is that of both parts and of their means (Chan et al. 1983).
            between = np.sqrt(before * count / (before + count)) * step
            deviations = np.vstack([own - own.mean(axis=0), between])
            self._scatter.add(deviations)
            self._squares[label] += np.square(deviations).sum(axis=0)
            self._means[label] += step * count / (before + count)
            self._counts[label] += count

    def classifier(
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
            >>> decisions = statistics.classifier()(features)
            >>> bool(decisions[y_true].min() > decisions[~y_true].mean())
            True
        """
        self._count_in()
        if not self._counts.all():
            raise ValueError("a discriminant needs patches of both classes")
        variance = self._squares[0] / self._counts[0]
        std = np.maximum(np.sqrt(variance), _MIN_STD / self._unit)
        gap = (self._means[1] - self._means[0]) / std
        variances, directions = self._scatter.principal(std)
        n_patches, n_features = self._counts.sum(), len(gap)
        variances = variances / n_patches
        total = float((self._squares.sum(axis=0) / std**2).sum() / n_patches)

        def gain(found: NDArray[np.float64]) -> NDArray[np.float64]:
            shrunk = (1 - shrinkage) * found.clip(min=0) + shrinkage * total / n_features
            powers: NDArray[np.float64] = shrunk.clip(min=np.finfo(np.float64).tiny) ** -exponent
            return powers

        along = directions.T @ gap
        weights = directions @ (along * gain(variances))
        n_others = n_features - len(variances)
        if n_others:
            mean_of_others = np.array((total - variances.sum()) / n_others)
            weights += (gap - directions @ along) * gain(mean_of_others)
        distance = float(weights @ gap)
        if not np.isfinite(distance) or distance <= np.finfo(np.float64).eps:
            raise ValueError("the class means are equal")
        weights = weights / std / distance
        intercept = -weights @ self._means[0] - (weights / self._unit) @ self._origin
        return LinearClassifier(weights / self._unit, float(intercept))


class _Scatter:
    """The sum of the outer products of rows: all of it or, of very many features, most of it.

    Args:
        n_features: Length of a row. Up to `_MATRIX_FEATURES` of them the sum is kept as a matrix.
            Of more, the rows themselves are kept, whose Gram matrix has the same eigenvalues; when
            there are twice as many as `_DIRECTIONS`, that many of the longest take their place.
    """

    def __init__(self, n_features: int) -> None:
        self._matrix = (
            np.zeros((n_features, n_features)) if n_features <= _MATRIX_FEATURES else None
        )
        self._rows = np.zeros((0, n_features))

    def add(self, rows: NDArray[np.float64]) -> None:
        """Add the outer products of rows (n, F)."""
        if self._matrix is not None:
            self._matrix += rows.T @ rows
            return
        self._rows = np.concatenate([self._rows, rows])
        if len(self._rows) >= 2 * _DIRECTIONS:
            values, vectors = _principal(self._rows)
            self._rows = (np.sqrt(values) * vectors).T[-_DIRECTIONS:]

    def principal(
        self, std: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Decompose the sum for rows that are divided by ``std``, (F,).

        Returns:
            Eigenvalues (k,), ascending, and eigenvectors (F, k). Those left out are 0, or small.
        """
        if self._matrix is not None:
            values, vectors = np.linalg.eigh(self._matrix / np.outer(std, std))
            return values, vectors
        return _principal(self._rows / std)


def _principal(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nonzero eigenvalues, ascending, and eigenvectors (F, k) of ``rows.T @ rows``."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > np.finfo(np.float64).eps * len(rows) * values[-1]
    return values[kept], rows.T @ vectors[:, kept] / np.sqrt(values[kept])
