"""Free-response ROC (FROC) over lesions: sensitivity against false positives per slide.

The rules are those of the Camelyon16 challenge's evaluation script without its faults: a slide has
tumor if tumor was drawn on it, whatever its name; a missed lesion is missed at every threshold, and
a hit counts whatever its score; the curve goes down to the lowest score.

References:
    B. Ehteshami Bejnordi et al., "Diagnostic assessment of deep learning algorithms for detection
    of lymph node metastases in women with breast cancer", JAMA 318, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.lesions import LesionMap
from qprd.predictions import LesionPoints

#: False positives per slide at which the FROC score averages the sensitivity.
FROC_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

NO_SLIDES = "there are no slides"
NO_LESIONS = "no slide has a lesion that counts"


@dataclass(frozen=True)
class Matches:
    """Which lesions of one slide its lesion points hit.

    Attributes:
        best_scores: (n,) highest score of a point in each lesion that counts, -inf if it is missed.
        false_positives: (f,) indices of the points outside of lesions and isolated tumor cells.
        false_positive_scores: (f,) their scores.
    """

    best_scores: NDArray[np.float64]
    false_positives: NDArray[np.intp]
    false_positive_scores: NDArray[np.float64]

    @property
    def hit_scores(self) -> NDArray[np.float64]:
        """The scores of the lesions that are hit."""
        return self.best_scores[self.best_scores > -np.inf]


@dataclass(frozen=True)
class Froc:
    """A FROC curve and its summary; counting points of at least ``thresholds[i]`` gives point i.

    Attributes:
        slides: Number of slides, those without lesions included.
        lesions: Number of lesions that count, on all slides.
        thresholds: (k,) descending; the first is infinite, the last the lowest score.
        fp_per_slide: (k,) ascending, from 0; NaN without slides.
        sensitivity: (k,) ascending, from 0; NaN without lesions.
        score: Mean of ``at_rates``, 0..1; None where it is undefined.
        at_rates: Sensitivity at each of `FROC_RATES`; None where it is undefined.
        reason: Why there is no score, None if there is one.
    """

    slides: int
    lesions: int
    thresholds: NDArray[np.float64]
    fp_per_slide: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    score: float | None
    at_rates: tuple[float, ...] | None
    reason: str | None


def match_points(points: LesionPoints, truth: LesionMap) -> Matches:
    """Compare the lesion points of one slide with its lesions.

    Of several points in a lesion only the best counts. Points in isolated tumor cells count neither
    way. On a slide without lesions all points are false positives.
    Points and lesions are in the same frame.

    Raises:
        ValueError: A score is not finite.
    """
    scores = np.asarray(points.scores, np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    labels = truth.labels_at(points.x, points.y)
    best = np.full(len(truth.is_itc) + 1, -np.inf)
    np.maximum.at(best, labels, scores)
    false_positives = np.flatnonzero(labels == 0)
    return Matches(
        best_scores=best[truth.lesions],
        false_positives=false_positives,
        false_positive_scores=scores[false_positives],
    )


def froc(slides: Sequence[Matches]) -> Froc:
    """Compute the FROC curve over slides, and its mean sensitivity at `FROC_RATES`.

    Slides without lesions or points belong to it. Between two rates that thresholds reach, the
    sensitivity is interpolated linearly, as in the challenge's script (``numpy.interp``). Of
    several thresholds at one rate the most sensitive counts. Beyond the rate of the lowest score
    the sensitivity stays as it is there.
    """
    hits = np.concatenate([np.empty(0), *(m.hit_scores for m in slides)])
    false = np.concatenate([np.empty(0), *(m.false_positive_scores for m in slides)])
    lesions = sum(m.best_scores.size for m in slides)
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([hits, false]))[::-1]])
    with np.errstate(invalid="ignore"):
        fp_per_slide = _at_least(false, thresholds) / np.float64(len(slides))
        sensitivity = _at_least(hits, thresholds) / np.float64(lesions)
    reason = NO_SLIDES if not slides else NO_LESIONS if not lesions else None
    at_rates = None
    if reason is None:
        at_rates = tuple(np.interp(FROC_RATES, fp_per_slide, sensitivity).tolist())
    return Froc(
        slides=len(slides),
        lesions=lesions,
        thresholds=thresholds,
        fp_per_slide=fp_per_slide,
        sensitivity=sensitivity,
        score=None if at_rates is None else float(np.mean(at_rates)),
        at_rates=at_rates,
        reason=reason,
    )


def _at_least(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.intp]:
    """The number of scores at or above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
