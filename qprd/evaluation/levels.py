"""The figures of a set of slides at the levels of patch, slide, lesion and pixel.

The patches are the cells of the score maps whose truth is known. Tumor and normal cells are as many
as were drawn, so that accuracy and precision depend on how much of either that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.bootstrap import (
    Interval,
    froc_interval,
    patch_intervals,
    slide_intervals,
    sum_intervals,
)
from qprd.evaluation.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    reliability_bins,
)
from qprd.evaluation.curves import Curve, precision_recall_curve, roc_curve
from qprd.evaluation.froc import FROC_RATES, Froc, Matches, froc
from qprd.evaluation.metrics import (
    LabeledCells,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    sensitivity,
    specificity,
)
from qprd.evaluation.overlap import Overlap

_AT_THRESHOLD = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}
NO_THRESHOLD = "the bundle has no threshold"
NO_CALIBRATION = "the bundle has no calibration"


@dataclass(frozen=True)
class MeasuredSlide:
    """One slide's predictions beside its truth.

    Attributes:
        name: Its name.
        has_tumor: Tumor is drawn on it.
        slide_score: Raw score; None if nothing was scored.
        cells: Cells of its score map whose truth is known.
        matches: What its detections hit.
        isolated: Groups of isolated tumor cells, which are no lesions.
        outside: Detections where nothing was drawn: nobody knows whether they are right.
        overlap: Areas, um^2, of contours and drawn tumor in the tissue whose truth is known; None
            without a threshold, which means without contours.
        overlap_tissue: Likewise in all tissue, as if what is not drawn were normal.
    """

    name: str
    has_tumor: bool
    slide_score: float | None
    cells: LabeledCells
    matches: Matches
    isolated: int
    outside: int
    overlap: Overlap | None
    overlap_tissue: Overlap | None


@dataclass(frozen=True)
class Figure:
    """A number, how sure it is, and what is to be said if there is none.

    Attributes:
        value: None if undefined.
        interval: 95 % bootstrap interval; None if there is none.
        reason: Why there is no value, else why there is no interval; None if there are both.
    """

    value: float | None
    interval: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Section:
    """Figures of one level.

    Attributes:
        counts: What they were measured on.
        figures: By name.
    """

    counts: Mapping[str, int]
    figures: Mapping[str, Figure]

    def value(self, name: str) -> float | None:
        """The value of one figure."""
        return self.figures[name].value


@dataclass(frozen=True)
class Measured:
    """All figures and curves.

    Attributes:
        patch: ``auroc``, ``average_precision``, ``accuracy``, ``balanced_accuracy``,
            ``sensitivity``, ``specificity``, ``expected_calibration_error``.
        slide: ``auroc``, ``average_precision``.
        froc: ``score`` and ``sensitivity_at_RATE``.
        pixel: ``iou`` and ``dice`` where the truth is known, ``iou_all_tissue`` and
            ``dice_all_tissue`` as if what is not drawn were normal.
        patch_roc: Of the patches; None without both classes.
        patch_precision_recall: Likewise.
        slide_roc: Of the slides; likewise.
        froc_curve: Over the slides with known truth.
        reliability: Probability against frequency, both classes weighing alike, as the
            probability holds for 1:1; empty without a calibration or without either class.
    """

    patch: Section
    slide: Section
    froc: Section
    pixel: Section
    patch_roc: Curve | None
    patch_precision_recall: Curve | None
    slide_roc: Curve | None
    froc_curve: Froc
    reliability: tuple[ReliabilityBin, ...] = field(default=())


def measure(
    slides: Sequence[MeasuredSlide],
    *,
    threshold: float | None,
    probability_of: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None,
    seed: int = 0,
) -> Measured:
    """Measure slides together.

    Args:
        slides: All slides.
        threshold: A cell is called tumor if its raw score is at or above it; None if there is none.
        probability_of: Turns raw scores into probabilities; None if nothing does.
        seed: Of the bootstrap.
    """
    y, scores = _pooled(slides)
    bins: tuple[ReliabilityBin, ...] = ()
    missing = _missing_class(y, "cells")
    calibration = Figure(None, reason=NO_CALIBRATION if y.size else missing)
    if probability_of is not None and y.size:
        probabilities = probability_of(scores.astype(np.float64))
        bins = reliability_bins(probabilities, y, balanced=True)
        error = expected_calibration_error(probabilities, y, balanced=True)
        no_interval = "resampling would only raise it"
        calibration = Figure(error, reason=missing if error is None else no_interval)
    scored = [slide for slide in slides if slide.slide_score is not None]
    slide_y = np.array([slide.has_tumor for slide in scored], dtype=np.bool_)
    slide_scores = np.array([slide.slide_score for slide in scored], dtype=np.float64)
    curve = froc([slide.matches for slide in slides])
    return Measured(
        patch=_patch_section(slides, threshold, calibration, seed),
        slide=_slide_section(slide_y, slide_scores, seed),
        froc=_froc_section(slides, curve, seed),
        pixel=_pixel_section(slides, seed),
        patch_roc=roc_curve(y, scores),
        patch_precision_recall=precision_recall_curve(y, scores),
        slide_roc=roc_curve(slide_y, slide_scores),
        froc_curve=curve,
        reliability=bins,
    )


def _pooled(slides: Sequence[MeasuredSlide]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels and scores of all slides, one after the other."""
    cells = [slide.cells for slide in slides]
    return (
        np.concatenate([np.empty(0, np.bool_), *(of_slide.y_tumor for of_slide in cells)]),
        np.concatenate([np.empty(0, np.float32), *(of_slide.scores for of_slide in cells)]),
    )


def _patch_section(
    slides: Sequence[MeasuredSlide],
    threshold: float | None,
    calibration: Figure,
    seed: int,
) -> Section:
    y, scores = _pooled(slides)
    with_cells = [slide.cells for slide in slides if slide.cells.scores.size]
    missing = _missing_class(y, "cells")
    intervals = patch_intervals(with_cells, threshold=threshold, seed=seed)
    figures = {
        name: _figure(function(y, scores), intervals.get(name), missing)
        for name, function in (("auroc", auroc), ("average_precision", average_precision))
    }
    for name, at in _AT_THRESHOLD.items():
        if threshold is None:
            figures[name] = Figure(None, reason=NO_THRESHOLD)
        else:
            figures[name] = _figure(at(y, scores, threshold), intervals.get(name), missing)
    figures["expected_calibration_error"] = calibration
    counts = {
        "slides": len(with_cells),
        "tumor": int(y.sum()),
        "normal": int((~y).sum()),
    }
    return Section(counts, figures)


def _slide_section(y: NDArray[np.bool_], scores: NDArray[np.float64], seed: int) -> Section:
    missing = _missing_class(y, "slides")
    intervals = slide_intervals(y, scores, seed=seed)
    figures = {
        name: _figure(
            function(y, scores),
            intervals.get(name),
            missing,
            "an interval needs two slides with tumor and two without",
        )
        for name, function in (("auroc", auroc), ("average_precision", average_precision))
    }
    return Section({"tumor": int(y.sum()), "normal": int((~y).sum())}, figures)


def _froc_section(slides: Sequence[MeasuredSlide], curve: Froc, seed: int) -> Section:
    counts = {
        "slides": curve.slides,
        "lesions": curve.lesions,
        "isolated_tumor_cells": sum(slide.isolated for slide in slides),
        "detections_where_nothing_is_drawn": sum(slide.outside for slide in slides),
    }
    interval = froc_interval([slide.matches for slide in slides], seed=seed)
    no_interval = None if interval else "an interval needs two slides with lesions"
    figures = {"score": Figure(curve.score, interval, curve.reason or no_interval)}
    for index, rate in enumerate(FROC_RATES):
        at = None if curve.at_rates is None else curve.at_rates[index]
        figures[f"sensitivity_at_{rate:g}"] = Figure(at, reason=curve.reason)
    return Section(counts, figures)


def _pixel_section(slides: Sequence[MeasuredSlide], seed: int) -> Section:
    figures: dict[str, Figure] = {}
    for suffix, overlaps in (
        ("", [slide.overlap for slide in slides]),
        ("_all_tissue", [slide.overlap_tissue for slide in slides]),
    ):
        known = [overlap for overlap in overlaps if overlap is not None]
        total = sum(known, Overlap())
        reason = None
        if not known:
            reason = NO_THRESHOLD
        elif total.iou is None:
            reason = "there is neither drawn tumor nor a contour"
        intervals = sum_intervals(
            [(overlap.predicted, overlap.truth, overlap.both) for overlap in known] or [(0, 0, 0)],
            {"iou": _iou, "dice": _dice},
            strata=[overlap.truth > 0 for overlap in known] or [False],
            seed=seed,
        )
        for name, value in (("iou", total.iou), ("dice", total.dice)):
            figures[name + suffix] = _figure(
                value, intervals.get(name), reason, "an interval needs two slides with tumor"
            )
    counts = {"slides": sum(slide.overlap is not None for slide in slides)}
    return Section(counts, figures)


def _iou(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted, truth, both = sums.T
    with np.errstate(invalid="ignore"):
        return np.asarray(both / (predicted + truth - both))


def _dice(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted, truth, both = sums.T
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * both / (predicted + truth))


def _figure(
    value: float | None,
    interval: Interval | None,
    missing: str | None,
    no_interval: str = "too few resamples define it",
) -> Figure:
    if value is None:
        return Figure(None, reason=missing)
    return Figure(value, interval, None if interval else no_interval)


def _missing_class(y: NDArray[np.bool_], what: str) -> str | None:
    if not y.size:
        return f"there are no {what} whose truth is known"
    if y.all():
        return f"there are no {what} known to be normal"
    if not y.any():
        return f"there are no {what} with tumor"
    return None
