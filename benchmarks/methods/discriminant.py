"""A linear discriminant of pooled features for many normal patches and a handful of tumor patches.

Fisher's discriminant needs the mean of either class and the covariance within the classes. The many
normal patches give the covariance; the few tumor patches only have to give a mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import moment_features
from qprd.model.head import LinearClassifier
from qprd.sampling.dataset import SYMMETRIES, symmetric

#: The symmetry that swaps x and y.
TRANSPOSED = 7

#: Part of the covariance that is replaced by its mean variance, so that directions in which the
#: training patches hardly vary are not taken at their word.
SHRINKAGE = 0.1

#: Power of the covariance: 1 is Fisher's discriminant, 0 the difference of the means. Between them,
#: the noise in the mean of three tumor patches is blown up less.
EXPONENT = 0.75

#: Features that hardly vary over normal patches are not blown up beyond this.
_MIN_STD = 1e-6


class Discriminant:
    """`fit_discriminant` on mean and mean square of each channel of the teacher's maps.

    Fitted to all eight symmetries of the training patches; a score is the mean of the decisions on
    the image and on the transposed image. Both moments are means over locations, so the decision is
    one, too: there is a score map for free.
    """

    def __init__(self, options: MethodOptions) -> None:
        self._features = moment_features(options.teacher, options.teacher_weights, options.device)
        self._classifier: LinearClassifier | None = None

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,  # noqa: ARG002
        val_tumor: Labels,  # noqa: ARG002
        *,
        seed: int,  # noqa: ARG002
    ) -> None:
        """See `methods.interface.Method`; validation patches and seed have no effect."""
        views = (self._view(train_images, symmetry) for symmetry in range(SYMMETRIES))
        self._classifier = fit_discriminant(views, train_tumor)

    def score(self, images: Images) -> Scores:
        """About 0 for normal patches and 1 for tumor patches."""
        assert self._classifier is not None
        views = [self._classifier(self._view(images, symmetry)) for symmetry in (0, TRANSPOSED)]
        return np.asarray(np.mean(views, axis=0), np.float64)

    def _view(self, images: Images, symmetry: int) -> NDArray[np.float64]:
        turned = np.ascontiguousarray(symmetric(images, symmetry))
        return self._features(turned).astype(np.float64)


def fit_discriminant(
    views: Iterable[NDArray[np.float64]],
    y_true: NDArray[np.bool_],
    *,
    shrinkage: float = SHRINKAGE,
    exponent: float = EXPONENT,
) -> LinearClassifier:
    """Fit a regularized Fisher discriminant; the classes weigh alike whatever their numbers.

    With features standardized over normal patches, C the covariance within the classes, shrunk
    towards its mean variance, and m the class means::

        w = C^-exponent (m_tumor - m_normal)

    scaled so that the mean decision is 0 for normal and 1 for tumor training patches.

    Args:
        views: Pooled features of the same patches, each in another symmetry, (n, F); at least
            one, read once.
        y_true: (n,), True for tumor; both classes.
        shrinkage: 0..1, see `SHRINKAGE`.
        exponent: 0..1, see `EXPONENT`.

    Returns:
        The classifier, for features as given.

    Raises:
        ValueError: one class is missing, or the class means are equal.

    References:
        Fisher (1936), *The use of multiple measurements in taxonomic problems*; Ledoit & Wolf
        (2004), *A well-conditioned estimator for large-dimensional covariance matrices*.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> y_true = np.array([False] * 50 + [True] * 5)
        >>> features = rng.normal(size=(55, 4)) + np.outer(y_true, [3, 0, 0, 0])
        >>> classify = fit_discriminant([features], y_true)
        >>> bool(classify(features)[y_true].min() > classify(features)[~y_true].mean())
        True
    """
    if y_true.all() or not y_true.any():
        raise ValueError("a discriminant needs patches of both classes")
    views = iter(views)
    first = next(views)
    origin = first[~y_true].mean(axis=0)  # near the data, so that sums of squares keep their digits
    n_features, n_views = first.shape[1], 0
    sums, products = np.zeros((2, n_features)), np.zeros((2, n_features, n_features))
    for view in itertools.chain([first], views):
        n_views += 1
        for label, rows in enumerate((view[~y_true] - origin, view[y_true] - origin)):
            sums[label] += rows.sum(axis=0)
            products[label] += rows.T @ rows
    counts = np.array([(~y_true).sum(), y_true.sum()]) * n_views
    means = sums / counts[:, None]
    scatters = [
        product - count * np.outer(mean, mean)
        for product, count, mean in zip(products, counts, means, strict=True)
    ]
    std = np.maximum(np.sqrt(np.diag(scatters[0]).clip(min=0) / counts[0]), _MIN_STD)
    covariance = (scatters[0] + scatters[1]) / counts.sum() / np.outer(std, std)
    gap = (means[1] - means[0]) / std
    variances, directions = np.linalg.eigh(covariance)
    variances = (1 - shrinkage) * variances.clip(min=0) + shrinkage * variances.mean()
    variances = variances.clip(min=np.finfo(np.float64).tiny)
    weights = directions @ (directions.T @ gap * variances**-exponent)
    distance = float(weights @ gap)
    if not np.isfinite(distance) or distance <= np.finfo(np.float64).eps:
        raise ValueError("the class means are equal")
    weights = weights / std / distance
    return LinearClassifier(weights, float(-weights @ (origin + means[0])))
