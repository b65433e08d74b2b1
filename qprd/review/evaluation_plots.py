"""ROC, precision-recall, FROC and calibration as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qprd.evaluation.calibration import ReliabilityBin
from qprd.evaluation.curves import Curve
from qprd.evaluation.froc import FROC_RATES, Froc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colors, told apart with every kind of color blindness; dashes differ too.
_COLORS, _DASHES = ("#0072b2", "#d55e00"), ("-", "--")
_QUIET, _GRID = "#5c5c66", "#e6e6ea"
_SIZE = (4.6, 4.4)
#: Leftmost rate of the FROC plot: its axis is logarithmic.
_LOWEST_RATE = 1 / 8


def roc_figure(
    curves: Mapping[str, Curve], *, operating_point: tuple[float, float] | None = None
) -> Figure:
    """Draw ROC curves.

    Args:
        curves: By the name in the legend.
        operating_point: False and true positive rate at the threshold, marked if given.
    """
    figure, axes = _square("ROC", "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.8, linestyle=":")
    for (label, curve), color, dash in zip(curves.items(), _COLORS, _DASHES, strict=False):
        axes.plot(curve.x, curve.y, color=color, linestyle=dash, label=label)
    if operating_point is not None:
        axes.plot(
            *operating_point, "o", color=_COLORS[0], markeredgecolor="white", label="threshold"
        )
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    return figure


def precision_recall_figure(
    curve: Curve,
    *,
    label: str,
    prevalence: float,
    operating_point: tuple[float, float] | None = None,
) -> Figure:
    """Draw a precision-recall curve over the precision of calling everything tumor.

    Args:
        curve: Drawn in steps, as average precision counts it.
        label: In the legend.
        prevalence: Share of tumor, 0..1.
        operating_point: Recall and precision at the threshold, marked if given.
    """
    figure, axes = _square("Precision and recall", "recall (sensitivity)", "precision")
    axes.axhline(
        prevalence, color=_QUIET, linewidth=0.8, linestyle=":", label=f"tumor: {prevalence:.0%}"
    )
    x = np.concatenate([[0.0], curve.x])
    y = np.concatenate([curve.y[:1], curve.y])
    axes.plot(x, y, color=_COLORS[0], drawstyle="steps-pre", label=label)
    if operating_point is not None:
        axes.plot(
            *operating_point, "o", color=_COLORS[0], markeredgecolor="white", label="threshold"
        )
    axes.legend(loc="lower left", fontsize=8.5, frameon=False)
    return figure


def froc_figure(curve: Froc) -> Figure:
    """Draw a FROC curve, marked at the rates that its score averages.

    Args:
        curve: With lesions; one that is undefined cannot be drawn.
    """
    figure, axes = _square(
        "FROC", "false positives per slide", "sensitivity (lesions)", equal=False
    )
    assert curve.score is not None
    assert curve.at_rates is not None
    highest = max(16.0, min(64.0, float(curve.fp_per_slide[-1])))
    rates = np.geomspace(_LOWEST_RATE, highest, 400)
    axes.plot(
        rates,
        np.interp(rates, curve.fp_per_slide, curve.sensitivity),
        color=_COLORS[0],
        label=f"lesions: {curve.lesions} on {curve.slides} slide{'s' * (curve.slides != 1)}",
    )
    axes.plot(
        FROC_RATES,
        curve.at_rates,
        "o",
        color=_COLORS[0],
        markeredgecolor="white",
        label=f"score {curve.score:.3f}",
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(_LOWEST_RATE, highest)
    axes.set_xticks(FROC_RATES, ["1/4", "1/2", "1", "2", "4", "8"])
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    return figure


def reliability_figure(bins: Sequence[ReliabilityBin], *, error: float) -> Figure:
    """Draw how often what got a probability was tumor, over how many got it.

    Args:
        bins: From 0 to 1.
        error: Expected calibration error.
    """
    figure, axes = _square("Calibration", "predicted probability", "share that is tumor")
    total = sum(b.count for b in bins)
    edges = np.linspace(0, 1, len(bins) + 1)
    axes.bar(
        edges[:-1],
        [b.count / max(total, 1) for b in bins],
        width=1 / len(bins),
        align="edge",
        color="#cfe3f1",
        edgecolor="white",
        label="share of the cells",
    )
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.8, linestyle=":")
    points = [
        (b.mean_probability, b.fraction_tumor)
        for b in bins
        if b.mean_probability is not None and b.fraction_tumor is not None
    ]
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=_COLORS[0],
        marker="o",
        markersize=4,
        label=f"calibration error {error:.3f}",
    )
    axes.legend(loc="upper left", fontsize=8.5, frameon=False)
    return figure


def _square(title: str, x: str, y: str, *, equal: bool = True) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(-0.02, 1.02)
    if equal:
        axes.set_xlim(-0.02, 1.02)
        axes.set_aspect("equal")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
