from __future__ import annotations

import numpy as np
import pytest

from qprd.evaluation.calibration import reliability_bins
from qprd.evaluation.curves import precision_recall_curve, roc_curve
from qprd.evaluation.froc import FROC_RATES, Matches, froc
from qprd.review.evaluation_plots import (
    froc_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from qprd.review.heatmap import figure_png

Y = np.array([False, False, True, True, False, True])
SCORES = np.array([0.1, 0.2, 0.3, 0.8, 0.6, 0.9])


def lines(figure, label):  # type: ignore[no-untyped-def]
    (axes,) = figure.axes
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def test_roc_curves_and_the_threshold_are_drawn_where_they_are() -> None:
    curve = roc_curve(Y, SCORES)
    assert curve is not None
    figure = roc_figure({"patches": curve, "slides": curve}, operating_point=(0.25, 0.75))
    assert (
        lines(figure, "patches").get_xydata().tolist()
        == np.column_stack([curve.x, curve.y]).tolist()
    )
    assert lines(figure, "threshold").get_xydata().tolist() == [[0.25, 0.75]]
    styles = {lines(figure, name).get_linestyle() for name in ("patches", "slides")}
    assert len(styles) == 2, "colors alone do not tell them apart"
    assert figure_png(figure).startswith(b"\x89PNG")


def test_precision_is_drawn_in_steps_over_the_share_of_tumor() -> None:
    curve = precision_recall_curve(Y, SCORES)
    assert curve is not None
    figure = precision_recall_figure(curve, label="patches", prevalence=0.5)
    line = lines(figure, "patches")
    assert line.get_drawstyle() == "steps-pre"
    assert line.get_xdata()[0] == 0
    assert line.get_xdata()[-1] == 1
    assert lines(figure, "tumor: 50%").get_ydata()[0] == 0.5


def test_the_froc_is_marked_at_its_rates() -> None:
    empty = np.empty(0, np.intp)
    slide = Matches(
        np.array([1, 2]), np.array([0, -1]), np.array([0.9, -np.inf]), empty, np.array([0.5])
    )
    curve = froc([slide])
    figure = froc_figure(curve)
    marked = lines(figure, f"score {curve.score:.3f}")
    assert tuple(marked.get_xdata()) == FROC_RATES
    assert tuple(marked.get_ydata()) == curve.at_rates == (0.5,) * 6


def test_the_reliability_has_a_point_for_each_filled_bin() -> None:
    bins = reliability_bins([0.05, 0.15, 0.95], [False, True, True])
    figure = reliability_figure(bins, error=0.25)
    line = lines(figure, "calibration error 0.250")
    assert line.get_xydata().tolist() == pytest.approx(np.array([[0.05, 0], [0.15, 1], [0.95, 1]]))
