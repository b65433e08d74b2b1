"""ROC and precision-recall curves over all thresholds, thinned to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.evaluation.metrics import checked_labels, has_both_classes

_Floats = NDArray[np.float64]

#: Largest number of points of a curve.
MAX_POINTS = 1000


@dataclass(frozen=True)
class Curve:
    """A curve by its corners, from the highest threshold to the lowest.

    Attributes:
        x: (n,) false positive rate (ROC) or recall (precision-recall), ascending.
        y: (n,) true positive rate or precision.
    """

    x: _Floats
    y: _Floats


def roc_curve(y_true: ArrayLike, scores: ArrayLike) -> Curve | None:
    """Compute sensitivity over 1 - specificity, from (0, 0) to (1, 1); None without a class."""
    y, s = checked_labels(y_true, scores)
    if not has_both_classes(y):
        return None
    from sklearn.metrics import roc_curve as sklearn_roc_curve

    false_positive, true_positive, _ = sklearn_roc_curve(y, s)
    return _thinned(false_positive, true_positive)


def precision_recall_curve(y_true: ArrayLike, scores: ArrayLike) -> Curve | None:
    """Compute precision over recall, the precision of each threshold; None without a class."""
    y, s = checked_labels(y_true, scores)
    if not has_both_classes(y):
        return None
    from sklearn.metrics import precision_recall_curve as sklearn_curve

    precision, recall, _ = sklearn_curve(y, s, drop_intermediate=True)
    # The last point (recall 0, precision 1) belongs to no threshold.
    return _thinned(recall[-2::-1], precision[-2::-1])


def _thinned(x: _Floats, y: _Floats) -> Curve:
    """Keep at most `MAX_POINTS` corners, both ends among them."""
    if x.size > MAX_POINTS:
        # Evenly along the curve, so that a steep part keeps its corners.
        along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        wanted = np.linspace(0, along[-1], MAX_POINTS)
        kept = np.unique(np.minimum(np.searchsorted(along, wanted), x.size - 1))
        x, y = x[kept], y[kept]
    return Curve(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
