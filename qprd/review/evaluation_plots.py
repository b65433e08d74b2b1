"""Curves of an evaluation: ROC, precision-recall, FROC and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qprd.evaluation.froc import FROC_RATES
from qprd.evaluation.levels import LesionMetrics, PatchMetrics, SlideMetrics
from qprd.review.figures import BLUE, GRID, ORANGE, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Leftmost rate of the FROC plot, whose axis is logarithmic.
_LOWEST_RATE = 1 / 8


def evaluation_figures(
    patch: PatchMetrics, slide: SlideMetrics, lesion: LesionMetrics
) -> dict[str, Figure | str]:
    """Draw the four plots of an evaluation.

    Returns:
        By title: the figure, or the reason why there is none.
    """
    reasons = patch.reasons
    has_error = patch.expected_calibration_error is not None
    return {
        "ROC": _roc(patch, slide) if patch.roc or slide.roc else reasons["auroc"],
        "Precision and recall": _precision_recall(patch)
        if patch.precision_recall
        else reasons["average_precision"],
        "FROC": lesion.froc.reason or _froc(lesion),
        "Calibration": _reliability(patch) if has_error else reasons["expected_calibration_error"],
    }


def _roc(patch: PatchMetrics, slide: SlideMetrics) -> Figure:
    figure, axes = _axes("ROC", "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    if patch.roc is not None:
        label = f"patches: AUROC {patch.auroc:.3f}"
        axes.plot(patch.roc.x, patch.roc.y, color=BLUE, label=label)
    if slide.roc is not None:
        label = f"slides: AUROC {slide.auroc:.3f}"
        axes.plot(slide.roc.x, slide.roc.y, color=ORANGE, linestyle="--", label=label)
    if patch.sensitivity is not None and patch.specificity is not None:
        _mark_threshold(axes, 1 - patch.specificity, patch.sensitivity)
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    return figure


def _precision_recall(patch: PatchMetrics) -> Figure:
    """Draw steps, as average precision counts them; the dotted line calls everything tumor."""
    curve = patch.precision_recall
    assert curve is not None
    n_tumor, n_normal = patch.measured_on["tumor"], patch.measured_on["normal"]
    prevalence = n_tumor / (n_tumor + n_normal)
    figure, axes = _axes("Precision and recall", "recall (sensitivity)", "precision")
    axes.axhline(
        prevalence, color=QUIET, linewidth=0.8, linestyle=":", label=f"tumor: {prevalence:.0%}"
    )
    axes.plot(
        np.concatenate([[0.0], curve.x]),
        np.concatenate([curve.y[:1], curve.y]),
        color=BLUE,
        drawstyle="steps-pre",
        label=f"patches: average precision {patch.average_precision:.3f}",
    )
    if patch.sensitivity and patch.specificity is not None:
        true_positives = patch.sensitivity * n_tumor
        called = true_positives + (1 - patch.specificity) * n_normal
        _mark_threshold(axes, patch.sensitivity, true_positives / called)
    axes.legend(loc="lower left", fontsize=8.5, frameon=False)
    return figure


def _froc(lesion: LesionMetrics) -> Figure:
    curve = lesion.froc
    figure, axes = _axes("FROC", "false positives per slide", "sensitivity (lesions)", equal=False)
    highest = max(16.0, min(64.0, float(curve.fp_per_slide[-1])))
    rates = np.geomspace(_LOWEST_RATE, highest, 400)
    axes.plot(
        rates,
        np.interp(rates, curve.fp_per_slide, curve.sensitivity),
        color=BLUE,
        label=f"lesions: {curve.lesions} on {curve.slides} slide{'s' * (curve.slides != 1)}",
    )
    axes.plot(
        FROC_RATES,
        list(lesion.sensitivity_at.values()),
        "o",
        color=BLUE,
        markeredgecolor="white",
        label=f"score {lesion.froc_score:.3f}",
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(_LOWEST_RATE, highest)
    axes.set_xticks(FROC_RATES, ["1/4", "1/2", "1", "2", "4", "8"])
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    return figure


def _reliability(patch: PatchMetrics) -> Figure:
    figure, axes = _axes("Calibration", "predicted probability", "share that is tumor")
    bins = patch.reliability
    counts = np.array([b.count for b in bins])
    axes.stairs(
        counts / counts.sum(),
        np.linspace(0, 1, len(bins) + 1),
        fill=True,
        color="#cfe3f1",
        label="share of the cells",
    )
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    points = np.array([(b.mean_probability, b.fraction_tumor) for b in bins if b.count], np.float64)
    axes.plot(
        *points.T,
        color=BLUE,
        marker="o",
        markersize=4,
        label=f"calibration error {patch.expected_calibration_error:.3f}",
    )
    axes.legend(loc="upper left", fontsize=8.5, frameon=False)
    return figure


def _mark_threshold(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "o", color=BLUE, markeredgecolor="white", label="threshold")


def _axes(title: str, x: str, y: str, *, equal: bool = True) -> tuple[Figure, Axes]:
    figure = new_figure((4.6, 4.4))
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.set(xlabel=x, ylabel=y, ylim=(-0.02, 1.02))
    if equal:
        axes.set(xlim=(-0.02, 1.02), aspect="equal")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
