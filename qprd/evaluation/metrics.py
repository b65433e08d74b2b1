"""How well scores separate tumor from normal.

In all functions ``y_tumor`` is bool, True = tumor, and a higher score means more like tumor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

from qprd.predictions import ScoreMap


@dataclass(frozen=True)
class Threshold:
    """A threshold fitted on labeled scores: tumor is ``score >= value``.

    Attributes:
        value: The threshold, in the unit of the scores.
        accuracy: Fraction of the scores it was fitted on that it labels correctly.
        lowest: Every threshold in (``lowest``, ``highest``] labels them the same.
        highest: See ``lowest``.
    """

    value: float
    accuracy: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class LabeledScores:
    """Scores whose truth is known, of one slide.

    Attributes:
        y_tumor: (n,) bool, True = tumor.
        scores: (n,) finite raw scores.
    """

    y_tumor: NDArray[np.bool_]
    scores: NDArray[np.floating]


@dataclass(frozen=True)
class LabeledCells(LabeledScores):
    """Cells of a score map whose truth is known.

    Attributes:
        x: (n,) centers in level-0 pixels of the QuPath frame.
        y: (n,) likewise.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def auroc(y_tumor: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a tumor scores higher than a normal.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.

    Returns:
        0..1, ties counted half; None unless both classes are there.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    if not _both_classes(y):
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, s))


def accuracy(y_tumor: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction labeled correctly by ``score >= threshold``; None if there are no scores.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.
        threshold: In the unit of the scores.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    return float(np.mean((s >= threshold) == y)) if y.size else None


def balanced_accuracy(y_tumor: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Mean of sensitivity and specificity of ``score >= threshold``.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.
        threshold: In the unit of the scores.

    Returns:
        0..1; None unless both classes are there.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    if not _both_classes(y):
        return None
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(y, s >= threshold))


def average_precision(y_tumor: ArrayLike, scores: ArrayLike) -> float | None:
    """Mean precision over the recall steps of all thresholds, without interpolation.

    A score that says nothing has the share of tumor among the scores, not one half.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.

    Returns:
        0..1; None unless both classes are there.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    if not _both_classes(y):
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, s))


def sensitivity(y_tumor: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction of the tumor with ``score >= threshold``; None if there is no tumor.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.
        threshold: In the unit of the scores.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    return float(np.mean(s[y] >= threshold)) if y.any() else None


def specificity(y_tumor: ArrayLike, scores: ArrayLike, threshold: float) -> float | None:
    """Fraction of the normal with ``score < threshold``; None if there is no normal.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.
        threshold: In the unit of the scores.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    return float(np.mean(s[~y] < threshold)) if (~y).any() else None


def accuracy_threshold(y_tumor: ArrayLike, scores: ArrayLike) -> Threshold | None:
    """Find the threshold that labels the most scores correctly.

    All thresholds in the gap between two neighboring distinct scores label alike. Among the gaps
    with the best accuracy the widest is taken (of equally wide ones the lowest), and its middle
    is the threshold: the choice that leaves the most room on both sides. Only if no gap between
    scores is best is it the lowest score (all are tumor) or the next number above the highest
    (none is).

    Fit it on validation data only: on test data its accuracy is an upper bound, not an estimate.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.

    Returns:
        The threshold; None unless both classes are there.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    return _best_threshold(y, s, tumor_weight=1, normal_weight=1) if _both_classes(y) else None


def youden_threshold(y_tumor: ArrayLike, scores: ArrayLike) -> Threshold | None:
    """Find the threshold with the largest sensitivity + specificity - 1 (Youden's J).

    Ties are broken as in `accuracy_threshold`, which it equals where both classes have as many
    scores.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.

    Returns:
        The threshold; None unless both classes are there.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    y, s = _labeled(y_tumor, scores)
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    # Whole numbers, in which equally good thresholds are equal.
    return (
        _best_threshold(y, s, tumor_weight=n_normal, normal_weight=n_tumor)
        if _both_classes(y)
        else None
    )


def _best_threshold(
    y: NDArray[np.bool_], s: NDArray[np.float64], *, tumor_weight: int, normal_weight: int
) -> Threshold:
    """The threshold with the largest weight of what is labeled correctly."""
    levels, level_of = np.unique(s, return_inverse=True)
    tumor = np.bincount(level_of, weights=y, minlength=levels.size)
    normal = np.bincount(level_of, weights=~y, minlength=levels.size)
    # At index i levels[i:] are called tumor; i = levels.size calls none tumor.
    true_positives = tumor.sum() - np.concatenate([[0.0], np.cumsum(tumor)])
    true_negatives = np.concatenate([[0.0], np.cumsum(normal)])
    worth = tumor_weight * true_positives + normal_weight * true_negatives
    best = np.flatnonzero(worth == worth.max())
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


def labeled_cells(score_map: ScoreMap, tumor: BaseGeometry, normal: BaseGeometry) -> LabeledCells:
    """Label the cells of a score map by where their centers lie.

    Args:
        score_map: Scores; NaN cells are left out.
        tumor: Polygons in level-0 pixels of the QuPath frame; invalid ones are repaired.
        normal: Likewise. Cells in both, or in neither, are left out.

    Returns:
        The cells in row-major order.
    """
    rows, columns = np.nonzero(~np.isnan(score_map.scores))
    x = score_map.x + (columns + 0.5) * score_map.cell_px
    y = score_map.y + (rows + 0.5) * score_map.cell_px
    inside = []
    for geometry in (shapely.make_valid(tumor), shapely.make_valid(normal)):
        shapely.prepare(geometry)
        inside.append(shapely.contains_xy(geometry, x, y))
    in_tumor, in_normal = inside
    chosen = in_tumor ^ in_normal
    return LabeledCells(
        y_tumor=in_tumor[chosen],
        scores=score_map.scores[rows[chosen], columns[chosen]],
        x=x[chosen],
        y=y[chosen],
    )


def tile_auroc(score_map: ScoreMap, tumor: BaseGeometry, normal: BaseGeometry) -> float | None:
    """AUROC of a score map against drawn regions; see `labeled_cells` and `auroc`."""
    cells = labeled_cells(score_map, tumor, normal)
    return auroc(cells.y_tumor, cells.scores)


def _labeled(
    y_tumor: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y, s = np.asarray(y_tumor), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels {y.shape} and scores {s.shape} must be one for one, in one row")
    if y.size and y.dtype != np.bool_:
        raise ValueError(f"labels must be bool (True = tumor), not {y.dtype}")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite")
    return y.astype(np.bool_), s


def _both_classes(y: NDArray[np.bool_]) -> bool:
    return bool(y.any() and not y.all())
