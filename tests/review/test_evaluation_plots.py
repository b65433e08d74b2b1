from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import box

from qprd.evaluation.calibration import Platt
from qprd.evaluation.cells import LabeledCells
from qprd.evaluation.froc import FROC_RATES, match_points
from qprd.evaluation.lesions import lesion_map
from qprd.evaluation.levels import (
    LesionMetrics,
    PatchMetrics,
    SlideComparison,
    SlideMetrics,
    lesion_metrics,
    patch_metrics,
    slide_metrics,
)
from qprd.predictions import LesionPoints
from qprd.review.evaluation_plots import evaluation_figures
from qprd.review.figures import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Y = np.array([False, False, True, True, False, True])
SCORES = np.array([0.1, 0.2, 0.3, 0.8, 0.6, 0.9])
THRESHOLD = 0.5

Levels = tuple[PatchMetrics, SlideMetrics, LesionMetrics]


def levels(*, has_tumor: tuple[bool, ...] = (True, False), calibrated: bool = True) -> Levels:
    """Metrics of slides with the same cells, and two lesion points, one of them in tumor."""
    points = LesionPoints(np.array([0.9, 0.5]), np.array([1500.0, 50.0]), np.array([1500.0, 50.0]))
    slides = [
        SlideComparison(
            has_tumor=tumor,
            slide_score=float(tumor),
            cells=LabeledCells(Y & tumor, SCORES, np.arange(6.0), np.zeros(6)),
            matches=match_points(
                points, lesion_map(box(1000, 1000, 2000, 2000) if tumor else box(0, 0, 0, 0), 0.5)
            ),
            n_isolated=0,
            n_unjudged=0,
            overlaps={},
        )
        for tumor in has_tumor
    ]
    probability_of = Platt(1.0, 0.0).probability if calibrated else None
    return (
        patch_metrics(slides, threshold=THRESHOLD, probability_of=probability_of),
        slide_metrics(slides),
        lesion_metrics(slides),
    )


def figure(title: str, found: Levels) -> Figure:
    drawn = evaluation_figures(*found)[title]
    assert not isinstance(drawn, str)
    return drawn


def line(drawn: Figure, label: str) -> Line2D:
    (axes,) = drawn.axes
    (found,) = [found for found in axes.get_lines() if str(found.get_label()).startswith(label)]
    return found


def points(drawn: Figure, label: str) -> NDArray[np.float64]:
    """Return the points of a line, (n, 2) as x, y."""
    return np.asarray(line(drawn, label).get_xydata(), dtype=np.float64)


def test_roc_curves_and_the_threshold_are_drawn_where_they_are() -> None:
    found = levels()
    patch, slide, _ = found
    drawn = figure("ROC", found)
    for label, curve in (("patches", patch.roc), ("slides", slide.roc)):
        assert curve is not None
        assert points(drawn, label).tolist() == np.column_stack([curve.x, curve.y]).tolist()
    assert patch.specificity is not None
    assert points(drawn, "threshold").tolist() == [[1 - patch.specificity, patch.sensitivity]]
    styles = {line(drawn, name).get_linestyle() for name in ("patches", "slides")}
    assert len(styles) == 2, "colors alone do not tell them apart"
    assert figure_png(drawn).startswith(b"\x89PNG")


def test_precision_is_drawn_in_steps_over_the_share_of_tumor() -> None:
    drawn = figure("Precision and recall", levels())
    assert line(drawn, "patches").get_drawstyle() == "steps-pre"
    recalls = points(drawn, "patches")[:, 0]
    assert (recalls[0], recalls[-1]) == (0, 1)
    assert points(drawn, "tumor: 25%")[0, 1] == 0.25
    # At the threshold 2 of 3 tumor cells and 4 normal ones are called tumor.
    ((recall, precision),) = points(drawn, "threshold").tolist()
    assert (recall, precision) == pytest.approx((2 / 3, 2 / 6))


def test_the_froc_is_marked_at_its_rates() -> None:
    found = levels()
    rates, sensitivities = points(figure("FROC", found), f"score {found[2].froc_score:.3f}").T
    assert tuple(rates) == FROC_RATES
    assert dict(zip(FROC_RATES, sensitivities, strict=True)) == found[2].sensitivity_at


def test_the_reliability_has_a_point_for_each_filled_bin() -> None:
    found = levels()
    filled = [b for b in found[0].reliability if b.count]
    drawn = points(figure("Calibration", found), "calibration error")
    expected = [[b.mean_probability, b.fraction_tumor] for b in filled]
    assert drawn == pytest.approx(np.array(expected))


def test_what_cannot_be_drawn_has_a_reason_in_its_place() -> None:
    drawn = evaluation_figures(*levels(has_tumor=(False,), calibrated=False))
    assert drawn == {
        "ROC": "there are no cells with tumor",
        "Precision and recall": "there are no cells with tumor",
        "FROC": "no slide has a lesion that counts",
        "Calibration": "the bundle has no calibration",
    }
