"""Operating points: thresholds chosen on validation data by a rule, such as ``accuracy``.

Tumor is ``score >= threshold``. All figures here are those of the data that chose the threshold,
which are an upper bound of what to expect elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from qprd.checked import MAX_PATCHES, STRICT, RawScore, Rule
from qprd.evaluation.metrics import (
    accuracy,
    checked_labels,
    has_both_classes,
    sensitivity,
    specificity,
)

#: Largest number of false positives that are kept, those with the highest scores.
MAX_FALSE_POSITIVES: Final = 20_000
#: Products such as 0.95 * 20 are off by a rounding error.
_ROUNDING = 1e-9


@checked_dataclass(frozen=True, config=STRICT)
class FalsePositives:
    """Lesion points in tissue that is labeled normal, on validation slides.

    Attributes:
        scores: Raw scores, the highest first; at most `MAX_FALSE_POSITIVES`.
        slides: On how many slides they were counted.
    """

    scores: Annotated[tuple[RawScore, ...], Field(max_length=MAX_FALSE_POSITIVES)]
    slides: Annotated[int, Field(ge=1, le=10**6)]

    def __post_init__(self) -> None:
        if (np.diff(self.scores) > 0).any():
            raise ValueError("scores must not rise")

    def per_slide(self, threshold: float) -> float | None:
        """Mean number at or above a threshold; None if it is more than were kept."""
        count = int((np.array(self.scores) >= threshold).sum())
        return None if count == MAX_FALSE_POSITIVES else count / self.slides


@checked_dataclass(frozen=True, config=STRICT)
class ValidationScores:
    """The scores that thresholds are chosen from.

    The bundle holds them, so that another rule needs no training.

    Attributes:
        tumor: Raw scores of the tumor patches, ascending.
        normal: Raw scores of the normal patches, ascending.
        false_positives: None unless the training counted them.
    """

    tumor: Annotated[tuple[RawScore, ...], Field(max_length=MAX_PATCHES)]
    normal: Annotated[tuple[RawScore, ...], Field(max_length=MAX_PATCHES)]
    false_positives: FalsePositives | None = None

    @classmethod
    def of(
        cls,
        y_true: NDArray[np.bool_],
        scores: NDArray[np.float32],
        false_positives: FalsePositives | None = None,
    ) -> ValidationScores:
        """Take the labels (n,), True for tumor, and the scores (n,) of patches."""
        y, s = checked_labels(y_true, scores)
        return cls(
            tumor=tuple(np.sort(s[y]).tolist()),
            normal=tuple(np.sort(s[~y]).tolist()),
            false_positives=false_positives,
        )

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest score of a patch; None without patches."""
        scores = self.tumor + self.normal
        return (min(scores), max(scores)) if scores else None

    def labeled(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Labels (n,) and scores (n,)."""
        y = np.arange(len(self.tumor) + len(self.normal)) < len(self.tumor)
        return y, np.array(self.tumor + self.normal, dtype=np.float64)


@dataclass(frozen=True)
class NoThreshold:
    """The answer of a rule that cannot choose a threshold."""

    reason: str


@dataclass(frozen=True)
class Achieved:
    """The figures of a threshold on validation data; None where undefined or not counted.

    Attributes:
        sensitivity: Fraction of the tumor patches that are found, 0..1.
        specificity: Fraction of the normal patches that are called normal, 0..1.
        accuracy: Fraction of all patches that are labeled correctly, 0..1.
        false_positives_per_slide: Lesion points in tissue that is labeled normal.
    """

    sensitivity: float | None
    specificity: float | None
    accuracy: float | None
    false_positives_per_slide: float | None

    def __str__(self) -> str:
        """The figures that are known, in one line."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in known.items())


def choose_threshold(rule: Rule, validation: ValidationScores) -> float | NoThreshold:
    """Choose a threshold by a rule from scores of validation data, never of test data.

    Returns:
        A raw score, or the reason why there is none.
    """
    if rule.name == "fp-per-slide":
        assert rule.value is not None
        return _by_false_positives(rule.value, validation.false_positives)
    if not validation.tumor or not validation.normal:
        return NoThreshold("no validation patches of both classes")
    if rule.name == "sensitivity":
        assert rule.value is not None
        needed = max(1, math.ceil(rule.value * len(validation.tumor) - _ROUNDING))
        return sorted(validation.tumor, reverse=True)[needed - 1]
    fit = accuracy_threshold if rule.name == "accuracy" else youden_threshold
    fitted = fit(*validation.labeled())
    assert fitted is not None
    return fitted.value


def achieved_at(threshold: float, validation: ValidationScores) -> Achieved:
    """Measure a threshold on the validation data."""
    y, scores = validation.labeled()
    counted = validation.false_positives
    return Achieved(
        sensitivity=sensitivity(y, scores, threshold),
        specificity=specificity(y, scores, threshold),
        accuracy=accuracy(y, scores, threshold),
        false_positives_per_slide=None if counted is None else counted.per_slide(threshold),
    )


def _by_false_positives(per_slide: float, found: FalsePositives | None) -> float | NoThreshold:
    if found is None:
        return NoThreshold("false positives were not counted on validation slides")
    if not found.scores:
        return NoThreshold("nothing that is labeled normal was scored on the validation slides")
    allowed = math.floor(per_slide * found.slides + _ROUNDING)
    if allowed < len(found.scores):
        return math.nextafter(found.scores[allowed], math.inf)
    if len(found.scores) == MAX_FALSE_POSITIVES:
        return NoThreshold(f"more than {MAX_FALSE_POSITIVES} false positives are not kept")
    return found.scores[-1]


@dataclass(frozen=True)
class Threshold:
    """A threshold fitted on labeled scores, and the fraction of them that it labels correctly."""

    value: float
    accuracy: float


def accuracy_threshold(y_true: ArrayLike, scores: ArrayLike) -> Threshold | None:
    """Find the threshold that labels the most scores correctly.

    All thresholds in the gap between two neighboring distinct scores give the same labels. Among
    the gaps with the best accuracy the widest is taken (of equally wide ones the lowest), and its
    middle is the threshold, which leaves the most room on both sides. If no gap between scores is
    best, the threshold is the lowest score (all are tumor) or the next number above the highest
    (none is).

    Returns:
        The threshold; None unless both classes are present.

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
    else:
        index = int(best[0])
        value = float(levels[0] if index == 0 else np.nextafter(levels[-1], np.inf))
    correct = true_positives[index] + true_negatives[index]
    return Threshold(value, float(correct / s.size))
