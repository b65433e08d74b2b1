"""Operating points: thresholds chosen on validation data by a rule.

Tumor is ``score >= threshold``. All figures here are those of the data that chose the threshold,
which are an upper bound of what to expect elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from qprd.checked import MAX_PATCHES, STRICT, RawScore, Rule
from qprd.evaluation.metrics import accuracy, checked_labels, sensitivity, specificity
from qprd.evaluation.thresholds import accuracy_threshold, youden_threshold

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
    """The answer of a rule that cannot choose a threshold.

    Attributes:
        reason: Why, in one sentence for the user.
    """

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
        figures = {
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "accuracy": self.accuracy,
            "false positives per slide": self.false_positives_per_slide,
        }
        return ", ".join(
            f"{name} {value:.3f}" for name, value in figures.items() if value is not None
        )


def choose_threshold(rule: Rule, validation: ValidationScores) -> float | NoThreshold:
    """Choose a threshold by a rule.

    Args:
        rule: The operating point, such as ``sensitivity=0.95``.
        validation: Scores of validation data, never of test data.

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
