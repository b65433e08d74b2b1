from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from qprd.errors import QprdError
from qprd.evaluation.calibration import (
    Platt,
    Uncalibrated,
    expected_calibration_error,
    fit_platt,
)


def fitted(scores: Any, y_tumor: Any) -> Platt:
    platt = fit_platt(scores, y_tumor, min_per_class=1)
    assert isinstance(platt, Platt)
    return platt


def loss(platt: Platt, scores: Any, y_tumor: Any) -> float:
    """Platt's objective, straight from the paper."""
    y = np.asarray(y_tumor)
    targets = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    p = np.clip(platt.probability(scores), 1e-300, 1 - 1e-16)
    return float(-np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p)))


@pytest.fixture
def overlapping() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    y = rng.random(200) < 0.4
    return rng.normal(1.0 + 0.5 * y, 0.4), y


def test_no_point_of_a_fine_grid_is_better(overlapping: Any) -> None:
    scores, y = overlapping
    platt = fitted(scores, y)
    best = loss(platt, scores, y)
    for slope in platt.slope + np.linspace(-1, 1, 21):
        for intercept in platt.intercept + np.linspace(-1, 1, 21):
            assert loss(Platt(slope, intercept), scores, y) >= best - 1e-12


def test_many_samples_give_the_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(20_000) < 0.5
    scores = rng.normal(y * 1.0, 1.0)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], y)
    platt = fitted(scores, y)
    # With this many samples Platt's targets are nearly 0 and 1.
    assert platt.slope == pytest.approx(reference.coef_[0, 0], rel=5e-3)
    assert platt.intercept == pytest.approx(reference.intercept_[0], rel=2e-2)


def test_separable_scores_give_a_finite_slope_and_the_smoothed_targets() -> None:
    scores, y = np.repeat([1.0, 2.0], 10), np.repeat([False, True], 10)
    p = fitted(scores, y).probability([1.0, 2.0])
    # Two score levels can meet both targets exactly.
    np.testing.assert_allclose(p, [1 / 12, 11 / 12], atol=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda pairs: len({y for _, y in pairs}) == 2
    )
)
def test_probability_never_falls_with_the_score(pairs: list[tuple[float, bool]]) -> None:
    platt = fitted(*zip(*pairs, strict=True))
    assert platt.slope >= 0
    assert np.isfinite([platt.slope, platt.intercept]).all()
    p = platt.probability(np.linspace(0, 6, 50))
    assert (np.diff(p) >= 0).all()
    assert ((p >= 0) & (p <= 1)).all()


def test_scores_the_wrong_way_around_give_one_probability_for_all() -> None:
    platt = fitted([1.0, 1.1, 2.0, 2.1], [True, True, False, False])
    assert platt.slope == 0
    assert platt.probability(5.0) == pytest.approx(0.5)


def test_equal_scores_give_the_frequency_of_tumor() -> None:
    platt = fitted(np.ones(40), np.arange(40) < 10)
    assert platt.slope == 0
    expected = (10 * 11 / 12 + 30 * 1 / 32) / 40
    assert platt.probability(1.0) == pytest.approx(expected)


def test_unit_of_the_scores_does_not_matter(overlapping: Any) -> None:
    scores, y = overlapping
    one, other = fitted(scores, y), fitted(scores * 1000 - 500, y)
    np.testing.assert_allclose(
        one.probability(scores), other.probability(scores * 1000 - 500), atol=1e-6
    )


def test_nan_stays_nan_and_the_shape_is_kept() -> None:
    p = Platt(2.0, -2.0).probability(np.array([[1.0, np.nan], [1e6, -1e6]], dtype=np.float32))
    np.testing.assert_array_equal(p, [[0.5, np.nan], [1.0, 0.0]])


def test_too_few_of_a_class_is_told_with_both_counts() -> None:
    result = fit_platt(np.arange(30.0), np.arange(30) >= 27)
    assert isinstance(result, Uncalibrated)
    assert "3 of tumor" in result.reason
    assert "27 of normal" in result.reason


@pytest.mark.parametrize(("scores", "y"), [([1.0, np.nan], [True, False]), ([1.0], [True, False])])
def test_unusable_input_is_refused(scores: Any, y: Any) -> None:
    with pytest.raises(ValueError, match="scores"):
        fit_platt(scores, y, min_per_class=1)


def test_round_trip_through_json() -> None:
    platt = Platt(3.25, -1.125)
    assert Platt.from_dict(json.loads(json.dumps(platt.to_dict()))) == platt


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"slope": 1.0},
        {"slope": "1", "intercept": 0.0},
        {"slope": float("nan"), "intercept": 0.0},
        {"slope": float("inf"), "intercept": 0.0},
        {"slope": True, "intercept": 0.0},
        {"slope": -0.5, "intercept": 0.0},
    ],
)
def test_a_broken_calibration_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(QprdError, match="calibration"):
        Platt.from_dict(values)


def test_calibration_error_of_known_cases() -> None:
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0
    assert expected_calibration_error([0.0, 1.0], [True, False]) == 1
    # Bin 0.2..0.3: mean .25, none tumor; bin 0.7..0.8: mean .75, half tumor.
    error = expected_calibration_error([0.25, 0.25, 0.75, 0.75], [False, False, True, False])
    assert error == pytest.approx((2 * 0.25 + 2 * 0.25) / 4)
    assert expected_calibration_error([0.25, np.nan], [False, True]) == 0.25
    assert expected_calibration_error([np.nan], [True]) is None
    with pytest.raises(ValueError, match="between"):
        expected_calibration_error([1.5], [True])


def test_fitted_probabilities_are_calibrated(overlapping: Any) -> None:
    scores, y = overlapping
    error = expected_calibration_error(fitted(scores, y).probability(scores), y)
    assert error is not None
    assert error < 0.1
