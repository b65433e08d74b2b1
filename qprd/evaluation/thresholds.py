"""Thresholds that separate labeled scores best.

Fit them on validation data only: on the data that chose the threshold its accuracy is an upper
bound, not an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.evaluation.metrics import checked_labels, has_both_classes


@dataclass(frozen=True)
class Threshold:
    """A threshold fitted on labeled scores: tumor is ``score >= value``.

    Attributes:
        value: The threshold, in the unit of the scores.
        accuracy: Fraction of the scores it was fitted on that it labels correctly.
        lowest: Every threshold in (``lowest``, ``highest``] labels them the same.
        highest: Upper end of that range.
    """

    value: float
    accuracy: float
    lowest: float
    highest: float


def accuracy_threshold(y_true: ArrayLike, scores: ArrayLike) -> Threshold | None:
    """Find the threshold that labels the most scores correctly.

    All thresholds in the gap between two neighboring distinct scores give the same labels. Among
    the gaps with the best accuracy the widest is taken (of equally wide ones the lowest), and its
    middle is the threshold, which leaves the most room on both sides. If no gap between scores is
    best, the threshold is the lowest score (all are tumor) or the next number above the highest
    (none is).

    Args:
        y_true: (n,) bool.
        scores: (n,) finite.

    Returns:
        The threshold; None unless both classes are present.

    Raises:
        ValueError: As `qprd.evaluation.metrics.checked_labels`.

    Examples:
        >>> accuracy_threshold([False, False, True], [1.0, 2.0, 6.0]).value
        4.0
    """
    y, s = checked_labels(y_true, scores)
    return _best_threshold(y, s, tumor_weight=1, normal_weight=1)


def youden_threshold(y_true: ArrayLike, scores: ArrayLike) -> Threshold | None:
    """Find the threshold with the largest Youden's J = sensitivity + specificity - 1.

    Ties are broken as in `accuracy_threshold`, which gives the same threshold where both classes
    have the same number of scores.

    Args:
        y_true: (n,) bool.
        scores: (n,) finite.

    Returns:
        The threshold; None unless both classes are present.

    Raises:
        ValueError: As `qprd.evaluation.metrics.checked_labels`.

    References:
        W. J. Youden, "Index for rating diagnostic tests", Cancer 3, 1950.
    """
    y, s = checked_labels(y_true, scores)
    # Whole numbers, so that equally good thresholds compare equal.
    return _best_threshold(y, s, tumor_weight=int((~y).sum()), normal_weight=int(y.sum()))


def _best_threshold(
    y: NDArray[np.bool_], s: NDArray[np.float64], *, tumor_weight: int, normal_weight: int
) -> Threshold | None:
    """The threshold with the largest weighted number of correct labels."""
    if not has_both_classes(y):
        return None
    levels, level_of = np.unique(s, return_inverse=True)
    n_tumor = np.bincount(level_of, weights=y, minlength=levels.size)
    n_normal = np.bincount(level_of, weights=~y, minlength=levels.size)
    # At index i levels[i:] are called tumor; i = levels.size calls none tumor.
    true_positives = n_tumor.sum() - np.concatenate([[0.0], np.cumsum(n_tumor)])
    true_negatives = np.concatenate([[0.0], np.cumsum(n_normal)])
    weighted = tumor_weight * true_positives + normal_weight * true_negatives
    best = np.flatnonzero(weighted == weighted.max())
    gaps = best[(best > 0) & (best < levels.size)]
    if gaps.size:
        index = int(gaps[np.argmax(levels[gaps] - levels[gaps - 1])])
        lowest, highest = float(levels[index - 1]), float(levels[index])
        middle = lowest + (highest - lowest) / 2
        # Between neighboring floating-point numbers the middle rounds to one of them.
        value = middle if middle > lowest else highest
    elif best[0] == 0:
        index, lowest, highest = 0, -np.inf, float(levels[0])
        value = highest
    else:
        index, lowest, highest = levels.size, float(levels[-1]), np.inf
        value = float(np.nextafter(lowest, np.inf))
    correct = true_positives[index] + true_negatives[index]
    return Threshold(value, float(correct / s.size), lowest, highest)
