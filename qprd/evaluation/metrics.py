"""Metrics of binary classification in which tumor is the positive class.

As in scikit-learn, labels come before scores: ``y_true`` (n,) is boolean, True for tumor, and
``scores`` (n,) are finite, higher for what is more like tumor. Metrics are 0..1, and None where the
labels lack a class that is needed. Labels that are not boolean are refused, so that swapped
arguments raise instead of giving a wrong number: every function here raises the ValueError of
`checked_labels`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_labels(
    y_true: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Convert labels and scores to arrays and check that they belong together.

    Raises:
        ValueError: The shapes differ, the labels are not boolean, or a score is not finite.
    """
    y, s = np.asarray(y_true), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels {y.shape} and scores {s.shape} must be one for one, in one row")
    if y.size and y.dtype != np.bool_:
        raise ValueError(f"labels must be bool (True = tumor), not {y.dtype}")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite")
    return y.astype(np.bool_), s


def has_both_classes(y_true: NDArray[np.bool_]) -> bool:
    """True if the labels hold both tumor and normal."""
    return bool(y_true.any() and not y_true.all())


def auroc(y_true: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve; None unless both classes are present.

    It is the chance that a random tumor scores higher than a random normal; ties count half, so
    scores that say nothing have 0.5.

    Examples:
        >>> auroc([False, False, True, True], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    y, s = checked_labels(y_true, scores)
    if not has_both_classes(y):
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, s))


def average_precision(y_true: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the precision-recall curve; None unless both classes are present.

    It is summed in steps: sum of (R[i] - R[i-1]) * P[i]. Scores that say nothing have the share of
    tumor.

    Examples:
        >>> round(average_precision([False, False, True, True], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    y, s = checked_labels(y_true, scores)
    if not has_both_classes(y):
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, s))


def accuracy(y_true: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction that ``score >= threshold`` labels correctly; None without scores.

    Examples:
        >>> accuracy([False, False, True, True], [0.1, 0.4, 0.35, 0.8], threshold=0.5)
        0.75
    """
    y, s = checked_labels(y_true, scores)
    return float(np.mean((s >= threshold) == y)) if y.size else None


def sensitivity(y_true: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction of the tumor with ``score >= threshold``, or recall; None without tumor."""
    y, s = checked_labels(y_true, scores)
    return float(np.mean(s[y] >= threshold)) if y.any() else None


def specificity(y_true: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction of the normal with ``score < threshold``; None without anything normal."""
    y, s = checked_labels(y_true, scores)
    return float(np.mean(s[~y] < threshold)) if (~y).any() else None


def balanced_accuracy(y_true: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Mean of sensitivity and specificity; None unless both classes are present."""
    rates = sensitivity(y_true, scores, threshold), specificity(y_true, scores, threshold)
    return None if rates[0] is None or rates[1] is None else (rates[0] + rates[1]) / 2
