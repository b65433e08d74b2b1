from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import auc

from qprd.evaluation.curves import MAX_POINTS, precision_recall_curve, roc_curve
from qprd.evaluation.metrics import auroc, average_precision
from tests.helpers.labeled_scores import samples, split


@given(samples)
def test_the_areas_under_the_curves_are_the_figures(pairs: list[tuple[bool, float]]) -> None:
    y, s = split(pairs)
    roc, precision_recall = roc_curve(y, s), precision_recall_curve(y, s)
    if y.all() or not y.any():
        assert roc is None
        assert precision_recall is None
        return
    assert roc is not None
    assert precision_recall is not None
    assert auc(roc.x, roc.y) == pytest.approx(auroc(y, s))
    steps = np.diff(precision_recall.x, prepend=0.0)
    assert float(steps @ precision_recall.y) == pytest.approx(average_precision(y, s))
    for curve in (roc, precision_recall):
        assert (np.diff(curve.x) >= 0).all()
        assert curve.x[-1] == 1
    assert (roc.x[0], roc.y[0], roc.y[-1]) == (0, 0, 1)
    assert precision_recall.y[-1] == pytest.approx(y.mean())


def test_a_curve_of_many_points_is_thinned_and_keeps_its_area() -> None:
    random = np.random.default_rng(0)
    y = random.random(200_000) < 0.02
    s = random.normal(size=y.size) + 2 * y
    roc, precision_recall = roc_curve(y, s), precision_recall_curve(y, s)
    assert roc is not None
    assert precision_recall is not None
    assert max(roc.x.size, precision_recall.x.size) <= MAX_POINTS
    assert auc(roc.x, roc.y) == pytest.approx(auroc(y, s), abs=0.002)
    steps = np.diff(precision_recall.x, prepend=0.0)
    assert float(steps @ precision_recall.y) == pytest.approx(average_precision(y, s), abs=0.005)
    assert (roc.x[-1], roc.y[-1], precision_recall.x[-1]) == (1, 1, 1)
