"""Metrics of a set of slides at four levels: patch, slide, lesion and pixel.

The patches are the cells of the score maps whose truth is known. They are as many of tumor and of
normal tissue as was drawn, so accuracy and precision depend on how much of each that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.bootstrap import (
    Interval,
    froc_interval,
    patch_intervals,
    slide_intervals,
    sum_intervals,
)
from qprd.evaluation.cells import LabeledCells
from qprd.evaluation.curves import Curve, precision_recall_curve, roc_curve
from qprd.evaluation.froc import FROC_RATES, Froc, Matches, froc
from qprd.evaluation.metrics import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    sensitivity,
    specificity,
)
from qprd.evaluation.overlap import Coverage, Overlap
from qprd.evaluation.reliability import ReliabilityBin, measure_reliability

NO_THRESHOLD = "the bundle has no threshold"
NO_CALIBRATION = "the bundle has no calibration"

_RANKING = {"auroc": auroc, "average_precision": average_precision}
_AT_THRESHOLD = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}


#: Where contours are compared with drawn tumor, as the names of `PixelMetrics` end: where the truth
#: is known, drawn tumor that was not scored included; where it is known and scored; and in all
#: tissue, counting undrawn tissue as normal.
MEASURED_IN = ("", "_scored", "_all_tissue")


@dataclass(frozen=True)
class SlideComparison:
    """One slide's predictions compared with what was drawn on it.

    Attributes:
        slide_score: Raw score; None if nothing was scored.
        n_isolated: Groups of isolated tumor cells, which are not lesions.
        n_unjudged: Lesion points where nothing was drawn, which are neither right nor wrong.
        overlaps: Areas in um^2 of contours and drawn tumor by what they are measured in, one of
            `MEASURED_IN`. Empty if there was no threshold to draw contours at.
        is_scored: (n,) bool, which lesions of ``matches`` have a score anywhere; None for all.
    """

    has_tumor: bool
    slide_score: float | None
    cells: LabeledCells
    matches: Matches
    n_isolated: int
    n_unjudged: int
    overlaps: Mapping[str, Overlap]
    is_scored: NDArray[np.bool_] | None = None
    tumor_mm2: Coverage = field(default_factory=Coverage)
    normal_mm2: Coverage = field(default_factory=Coverage)

    @property
    def scored_matches(self) -> Matches:
        """The matches without the lesions that were not scored."""
        if self.is_scored is None:
            return self.matches
        return replace(self.matches, best_scores=self.matches.best_scores[self.is_scored])


def _metric(label: str) -> Any:
    """A field that holds a metric, and its name on pages."""
    return field(metadata={"label": label})


@dataclass(frozen=True, kw_only=True)
class LevelMetrics:
    """Metrics of one level, each an attribute of its own, None where it is undefined.

    Attributes:
        measured_on: Size of the sample: how many slides, tumor cells and the like.
        intervals: 95 % bootstrap intervals by metric.
        reasons: By metric, why it is undefined, or else why it has no interval.
    """

    measured_on: Mapping[str, int]
    intervals: Mapping[str, Interval]
    reasons: Mapping[str, str]

    @classmethod
    def labels(cls) -> dict[str, str]:
        """How the metrics are called on pages, by attribute."""
        return {f.name: f.metadata["label"] for f in fields(cls) if "label" in f.metadata}

    def values(self) -> dict[str, float | None]:
        """All metrics of the level by name, in the order of ``labels``."""
        return {name: getattr(self, name) for name in self.labels()}


@dataclass(frozen=True, kw_only=True)
class SlideMetrics(LevelMetrics):
    """Metrics of the slide scores: is there tumor on the slide?"""

    auroc: float | None = _metric("AUROC")
    average_precision: float | None = _metric("average precision")
    roc: Curve | None


@dataclass(frozen=True, kw_only=True)
class PatchMetrics(SlideMetrics):
    """Metrics of the patches of all slides together: those of `SlideMetrics`, and more.

    Attributes:
        accuracy: At the threshold, as are the next three.
        expected_calibration_error: Calibration error of the probabilities, with both classes
            weighted equally.
        precision_recall: The precision-recall curve; None unless there are both classes.
        reliability: Probability against frequency, with both classes weighted equally; empty
            without a calibration or one of the classes.
    """

    accuracy: float | None = _metric("accuracy")
    balanced_accuracy: float | None = _metric("balanced accuracy")
    sensitivity: float | None = _metric("sensitivity")
    specificity: float | None = _metric("specificity")
    expected_calibration_error: float | None = _metric("calibration error")
    precision_recall: Curve | None
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, kw_only=True)
class LesionMetrics(LevelMetrics):
    """Metrics of the lesion points, as in the Camelyon16 challenge.

    Attributes:
        froc_score: Mean sensitivity at `FROC_RATES` false positives per slide; lesions that were
            not scored are missed.
        froc_score_scored: The same without the lesions that were not scored.
        sensitivity_at: Sensitivity at each of these rates; empty if it is undefined.
    """

    froc_score: float | None = _metric("FROC score")
    froc_score_scored: float | None = _metric("FROC score of what was scored")
    sensitivity_at: Mapping[float, float]
    froc: Froc

    @classmethod
    def labels(cls) -> dict[str, str]:
        """Those of the scores, and of ``sensitivity_at_RATE`` for each rate."""
        at = {f"sensitivity_at_{r:g}": f"sensitivity at {r:g} FP per slide" for r in FROC_RATES}
        return super().labels() | at

    def values(self) -> dict[str, float | None]:
        """The scores, and ``sensitivity_at_RATE`` for each rate."""
        scores = {"froc_score": self.froc_score, "froc_score_scored": self.froc_score_scored}
        at = self.sensitivity_at
        return scores | {f"sensitivity_at_{rate:g}": at.get(rate) for rate in FROC_RATES}


@dataclass(frozen=True, kw_only=True)
class PixelMetrics(LevelMetrics):
    """Agreement of contours and drawn tumor by area, where `MEASURED_IN` says."""

    iou: float | None = _metric("IoU where the truth is known")
    dice: float | None = _metric("Dice where the truth is known")
    sensitivity: float | None = _metric("drawn tumor inside contours")
    iou_scored: float | None = _metric("IoU in scored tissue")
    dice_scored: float | None = _metric("Dice in scored tissue")
    sensitivity_scored: float | None = _metric("scored tumor inside contours")
    iou_all_tissue: float | None = _metric("IoU in all tissue")
    dice_all_tissue: float | None = _metric("Dice in all tissue")


def patch_metrics(
    slides: Sequence[SlideComparison],
    *,
    threshold: float | None,
    probability_of: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None,
) -> PatchMetrics:
    """Measure the labeled cells of all slides together."""
    with_cells = [slide.cells for slide in slides if slide.cells.scores.size]
    y_true = np.concatenate([np.empty(0, np.bool_), *(cells.y_true for cells in with_cells)])
    scores = np.concatenate([np.empty(0, np.float32), *(cells.scores for cells in with_cells)])
    missing = _missing_class(y_true, "cells")
    intervals = patch_intervals(with_cells, threshold=threshold)
    values = {name: metric(y_true, scores) for name, metric in _RANKING.items()}
    for name, metric_at in _AT_THRESHOLD.items():
        values[name] = None if threshold is None else metric_at(y_true, scores, threshold)
    reasons = _reasons(values, intervals, missing, "too few resamples define it")
    if threshold is None:
        reasons |= dict.fromkeys(_AT_THRESHOLD, NO_THRESHOLD)

    error: float | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    why = NO_CALIBRATION if y_true.size else "there are no cells whose truth is known"
    if probability_of is not None and y_true.size:
        probabilities = probability_of(scores.astype(np.float64))
        error, reliability = measure_reliability(y_true, probabilities, balanced=True)
        why = missing or "resampling would only raise it"
    reasons["expected_calibration_error"] = why
    return PatchMetrics(
        **values,
        expected_calibration_error=error,
        roc=roc_curve(y_true, scores),
        precision_recall=precision_recall_curve(y_true, scores),
        reliability=reliability,
        measured_on={
            "slides": len(with_cells),
            "tumor": int(y_true.sum()),
            "normal": int((~y_true).sum()),
        },
        intervals=intervals,
        reasons=reasons,
    )


def slide_metrics(slides: Sequence[SlideComparison]) -> SlideMetrics:
    """Measure the slide scores; slides without one are left out."""
    scored = [(slide.has_tumor, s) for slide in slides if (s := slide.slide_score) is not None]
    y_true = np.array([has_tumor for has_tumor, _ in scored], dtype=np.bool_)
    scores = np.array([score for _, score in scored], dtype=np.float64)
    intervals = slide_intervals(y_true, scores)
    values = {name: metric(y_true, scores) for name, metric in _RANKING.items()}
    return SlideMetrics(
        **values,
        roc=roc_curve(y_true, scores),
        measured_on={"tumor": int(y_true.sum()), "normal": int((~y_true).sum())},
        intervals=intervals,
        reasons=_reasons(
            values,
            intervals,
            _missing_class(y_true, "slides"),
            "an interval needs two slides with tumor and two without",
        ),
    )


def lesion_metrics(slides: Sequence[SlideComparison]) -> LesionMetrics:
    """Measure the lesion points of all slides."""
    matches = [slide.matches for slide in slides]
    curve = froc(matches)
    scored = [slide.scored_matches for slide in slides]
    within = froc(scored)
    found = {"froc_score": froc_interval(matches), "froc_score_scored": froc_interval(scored)}
    intervals = {name: one for name, one in found.items() if one is not None}
    needed = "an interval needs two slides with lesions"
    reasons = {name: within.reason or needed for name in found if name not in intervals}
    if curve.reason is not None:
        reasons = dict.fromkeys(LesionMetrics.labels(), curve.reason)
    return LesionMetrics(
        froc_score=curve.score,
        froc_score_scored=within.score,
        sensitivity_at=dict(zip(FROC_RATES, curve.at_rates or (), strict=False)),
        froc=curve,
        measured_on={
            "slides": curve.slides,
            "lesions": curve.lesions,
            "lesions_not_scored": curve.lesions - within.lesions,
            "isolated_tumor_cells": sum(slide.n_isolated for slide in slides),
            "detections_where_nothing_is_drawn": sum(slide.n_unjudged for slide in slides),
        },
        intervals=intervals,
        reasons=reasons,
    )


def pixel_metrics(slides: Sequence[SlideComparison]) -> PixelMetrics:
    """Measure how well the contours of all slides that have any cover the drawn tumor."""
    values: dict[str, float | None] = {}
    intervals: dict[str, Interval] = {}
    reasons: dict[str, str] = {}
    for measured_in in MEASURED_IN:
        known = [slide.overlaps[measured_in] for slide in slides if slide.overlaps]
        total = sum(known, Overlap())
        metrics = {
            name: metric
            for metric in ("iou", "dice", "sensitivity")
            if (name := metric + measured_in) in PixelMetrics.labels()
        }
        found = {name: getattr(total, metric) for name, metric in metrics.items()}
        own = sum_intervals(
            [astuple(overlap) for overlap in known],
            {name: partial(_of_sums, metric) for name, metric in metrics.items()},
            has_tumor=[overlap.truth > 0 for overlap in known],
        )
        undefined = "there is neither drawn tumor nor a contour" if known else NO_THRESHOLD
        reasons |= _reasons(found, own, undefined, "an interval needs two slides with tumor")
        values |= found
        intervals |= own
    return PixelMetrics(
        **values,
        measured_on={"slides": sum(bool(slide.overlaps) for slide in slides)},
        intervals=intervals,
        reasons=reasons,
    )


def _of_sums(metric: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """A metric of `Overlap` for each row of summed areas, NaN where it is undefined."""
    return np.array([getattr(Overlap(*row), metric) for row in sums.tolist()], np.float64)


def _reasons(
    values: Mapping[str, float | None],
    intervals: Mapping[str, Interval],
    undefined: str | None,
    no_interval: str,
) -> dict[str, str]:
    """Why metrics are undefined or have no interval."""
    return {
        name: (undefined or "") if value is None else no_interval
        for name, value in values.items()
        if name not in intervals
    }


def _missing_class(y_true: NDArray[np.bool_], what: str) -> str | None:
    if not y_true.size:
        return f"there are no {what} whose truth is known"
    if y_true.all():
        return f"there are no {what} known to be normal"
    if not y_true.any():
        return f"there are no {what} with tumor"
    return None
