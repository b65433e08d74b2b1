from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from qprd.evaluation.calibration import (
    MIN_FOR_CHOICE,
    Calibration,
    Isotonic,
    Platt,
    Uncalibrated,
    fit_calibration,
    fit_isotonic,
    fit_platt,
)
from qprd.evaluation.reliability import measure_reliability

Labeled = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

#: Raw scores of any recipe: 32-bit numbers, of either sign, without bounds.
any_score = st.floats(width=32, allow_nan=False, allow_infinity=False)
some_scores = st.lists(
    st.tuples(st.one_of(st.floats(-8, 8), any_score), st.booleans()), min_size=2, max_size=40
).filter(lambda pairs: len({y for _, y in pairs}) == 2)


def platt_loss(platt: Platt, y_true: Any, scores: Any) -> float:
    """Platt's objective, straight from the paper."""
    y = np.asarray(y_true)
    targets = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    p = np.clip(platt.probability(scores), 1e-300, 1 - 1e-16)
    return float(-np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p)))


def drawn(n: int, seed: int, *, kinked: bool) -> Labeled:
    """Scores of two classes, 1:1; if kinked, their log-odds are a step and far from a line."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, n)
    log_odds = np.where(scores > 4, 3.0, -0.5) if kinked else 1.2 * scores
    return rng.random(n) < 1 / (1 + np.exp(-log_odds)), scores


@pytest.fixture
def overlapping() -> Labeled:
    rng = np.random.default_rng(5)
    y = rng.random(200) < 0.4
    return y, rng.normal(1.0 + 0.5 * y, 0.4)


# --- Platt's curve --------------------------------------------------------------------------


def test_no_point_of_a_fine_grid_is_better(overlapping: Labeled) -> None:
    y, scores = overlapping
    platt = fit_platt(y, scores)
    best = platt_loss(platt, y, scores)
    for slope in platt.slope + np.linspace(-1, 1, 21):
        for intercept in platt.intercept + np.linspace(-1, 1, 21):
            assert platt_loss(Platt(slope, intercept), y, scores) >= best - 1e-12


def test_many_samples_give_the_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(20_000) < 0.5
    scores = rng.normal(y * 1.0, 1.0)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], y)
    platt = fit_platt(y, scores)
    # With this many samples Platt's targets are nearly 0 and 1.
    assert platt.slope == pytest.approx(reference.coef_[0, 0], rel=5e-3)
    assert platt.intercept == pytest.approx(reference.intercept_[0], rel=2e-2)


def test_separable_scores_give_a_finite_slope_and_the_smoothed_targets() -> None:
    y, scores = np.repeat([False, True], 10), np.repeat([1.0, 2.0], 10)
    p = fit_platt(y, scores).probability([1.0, 2.0])
    # Two score levels can meet both targets exactly.
    np.testing.assert_allclose(p, [1 / 12, 11 / 12], atol=1e-6)


def test_scores_the_wrong_way_around_give_one_probability_for_all() -> None:
    for fit in (fit_platt, fit_isotonic):
        curve = fit([True, True, False, False], [1.0, 1.1, 2.0, 2.1])
        assert curve.probability([-5.0, 1.5, 5.0]) == pytest.approx([0.5] * 3)


def test_equal_scores_give_the_frequency_of_tumor() -> None:
    expected = (10 * 11 / 12 + 30 * 1 / 32) / 40
    for fit in (fit_platt, fit_isotonic):
        assert fit(np.arange(40) < 10, np.ones(40)).probability(1.0) == pytest.approx(expected)


def test_unit_of_the_scores_does_not_matter(overlapping: Labeled) -> None:
    y, scores = overlapping
    for fit in (fit_platt, fit_isotonic):
        one, other = fit(y, scores), fit(y, scores * 1000 - 500)
        beyond = np.append(scores, [-2.0, 9.0])
        np.testing.assert_allclose(
            one.probability(beyond), other.probability(beyond * 1000 - 500), atol=1e-6
        )


# --- the isotonic curve ---------------------------------------------------------------------


def test_it_is_scikit_learns_isotonic_regression_but_for_the_share_of_platts_curve() -> None:
    y, scores = drawn(400, 1, kinked=True)
    curve = fit_isotonic(y, scores)
    targets = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    reference = IsotonicRegression(out_of_bounds="clip").fit(scores, targets)
    asked = np.linspace(-12, 12, 1000)
    expected = 0.99 * reference.predict(asked) + 0.01 * fit_platt(y, scores).probability(asked)
    np.testing.assert_allclose(curve.probability(asked), expected, atol=1e-12)
    assert len(curve.scores) > 5


def test_it_is_linear_between_its_points_and_flat_but_for_platts_curve_beyond() -> None:
    curve = Isotonic((1.0, 3.0, 4.0), (0.2, 0.4, 0.9), 0.0, 0.0)
    p = (curve.probability([-9, 1, 2, 3, 3.5, 4, 99]) - 0.005) / 0.99
    np.testing.assert_allclose(p, [0.2, 0.2, 0.3, 0.4, 0.65, 0.9, 0.9])


@given(some_scores, st.lists(any_score, min_size=2, max_size=20))
@example([(0.0, True), (float(np.finfo(np.float32).max), False)], [0.0, 0.0])
def test_order_by_probability_and_by_raw_score_agree(
    pairs: list[tuple[float, bool]], asked: list[float]
) -> None:
    scores, y = zip(*pairs, strict=True)
    for curve in (fit_platt(y, scores), fit_isotonic(y, scores)):
        s = np.unique(np.concatenate([asked, scores, np.linspace(-9, 9, 30)]))
        s = np.unique(np.concatenate([s, np.nextafter(s, np.inf), np.nextafter(s, -np.inf)]))
        p = curve.probability(s)
        assert (np.diff(p) >= 0).all()
        assert ((p >= 0) & (p <= 1)).all()
        adapter: TypeAdapter[Platt | Isotonic] = TypeAdapter(Calibration)
        assert adapter.validate_json(adapter.dump_json(curve), strict=True) == curve


@given(st.integers(0, 10_000), st.booleans())
def test_scores_that_differ_have_probabilities_that_differ(seed: int, kinked: bool) -> None:
    y, scores = drawn(80, seed, kinked=kinked)
    if fit_platt(y, scores).slope < 1e-9:
        return
    p = fit_isotonic(y, scores).probability(np.linspace(-9, 9, 200))
    assert (np.diff(p) > 0).all()


def test_nan_stays_nan_and_the_shape_is_kept() -> None:
    scores = np.array([[1.0, np.nan], [1e6, -1e6]], dtype=np.float32)
    flat = Isotonic((1.0,), (0.5,), 2.0, -2.0)
    for curve, far in ((Platt(2.0, -2.0), [1.0, 0.0]), (flat, [0.505, 0.495])):
        np.testing.assert_allclose(curve.probability(scores), [[0.5, np.nan], far])
        assert curve.probability(1.0).shape == ()


# --- the choice -----------------------------------------------------------------------------


def chosen(y: Any, scores: Any, groups: Any = None, seed: int = 0) -> Platt | Isotonic:
    result = fit_calibration(y, scores, groups, seed=seed)
    assert not isinstance(result, Uncalibrated)
    assert result.reliability is not None
    return result


def test_each_curve_is_chosen_where_it_is_right_and_fitted_on_all_patches() -> None:
    y, scores = drawn(600, 3, kinked=False)
    smooth = chosen(y, scores)
    assert isinstance(smooth, Platt)
    assert (smooth.slope, smooth.intercept) == (
        fit_platt(y, scores).slope,
        fit_platt(y, scores).intercept,
    )
    y, scores = drawn(600, 3, kinked=True)
    kinked = chosen(y, scores)
    assert isinstance(kinked, Isotonic)
    assert kinked.probabilities == fit_isotonic(y, scores).probabilities
    for curve, lower in ((smooth, "platt"), (kinked, "isotonic")):
        figures = curve.reliability
        assert figures is not None
        assert figures.log_loss_isotonic is not None
        isotonic_is_lower = figures.log_loss_isotonic < figures.log_loss_platt
        assert isotonic_is_lower == (lower == "isotonic")
        assert lower in figures.reason.lower()


def test_figures_are_of_patches_that_the_curve_was_not_fitted_on() -> None:
    """Labels without any relation to the scores: an isotonic curve still follows its own."""
    rng = np.random.default_rng(2)
    scores, y = rng.normal(size=400), rng.permutation(np.arange(400) % 2 == 0)
    inside = fit_isotonic(y, scores).probability(scores)
    figures = chosen(y, scores).reliability
    assert figures is not None
    assert figures.log_loss_isotonic is not None
    assert log_loss(y, inside) < 0.69 < figures.log_loss_isotonic
    assert figures.brier_score > 0.249


def test_slides_are_kept_together_where_there_are_several() -> None:
    """A slide whose scores are shifted is judged by a curve that has not seen it."""
    rng = np.random.default_rng(4)
    y = np.arange(400) % 2 == 0
    shift = np.repeat([0.0, 6.0], 200)
    scores = rng.normal(size=400) + 3 * y + shift
    slides = ["a"] * 200 + ["b"] * 200
    by_slide, by_patch = chosen(y, scores, slides).reliability, chosen(y, scores).reliability
    assert by_slide is not None
    assert by_patch is not None
    assert (by_slide.by_slide, by_slide.folds) == (True, 2)
    assert (by_patch.by_slide, by_patch.folds) == (False, 5)
    assert by_slide.log_loss_platt > 2 * by_patch.log_loss_platt
    # One slide of each class: no slide can be left out.
    alone = chosen(y, scores, ["tumor" if tumor else "normal" for tumor in y]).reliability
    assert alone is not None
    assert not alone.by_slide


def test_figures_agree_with_each_other_and_the_seed_decides() -> None:
    y, scores = drawn(300, 7, kinked=True)
    first, again, other = (chosen(y, scores, seed=seed).reliability for seed in (1, 1, 2))
    assert first == again != other
    assert first is not None
    assert (first.n_tumor, first.n_normal) == (y.sum(), (~y).sum())
    assert sum(b.count for b in first.bins) == 300
    error = sum(
        b.count / 300 * abs(b.mean_probability - b.fraction_tumor)
        for b in first.bins
        if b.mean_probability is not None and b.fraction_tumor is not None
    )
    assert first.expected_calibration_error == pytest.approx(error)
    assert 0 < first.expected_calibration_error < 0.15


def test_too_few_of_a_class_is_told_with_both_counts() -> None:
    for tumor in (0, 1):
        result = fit_calibration(np.arange(30) >= 30 - tumor, np.arange(30.0), seed=0)
        assert isinstance(result, Uncalibrated)
        assert f"{tumor} of tumor" in result.reason
        assert f"{30 - tumor} of normal" in result.reason


def test_few_patches_give_platts_curve_and_a_warning() -> None:
    for each in (2, 3, MIN_FOR_CHOICE - 1):
        y = np.arange(2 * each) % 2 == 0
        curve = chosen(y, np.random.default_rng(0).normal(size=len(y)) + y)
        assert isinstance(curve, Platt)
        figures = curve.reliability
        assert figures is not None
        assert figures.log_loss_isotonic is None
        assert f"{each} tumor and {each} normal validation patches are few" in figures.reason
    enough = np.arange(2 * MIN_FOR_CHOICE) % 2 == 0
    figures = chosen(enough, np.random.default_rng(0).normal(size=len(enough)) + enough).reliability
    assert figures is not None
    assert figures.log_loss_isotonic is not None


@pytest.mark.filterwarnings("error")
@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abcd"), st.floats(-9, 9)), max_size=14),
    st.integers(0, 3),
)
def test_however_few_patches_and_slides_there_are_it_is_a_curve_or_a_reason(
    patches: list[tuple[bool, str, float]], seed: int
) -> None:
    y = np.array([tumor for tumor, _, _ in patches], dtype=bool)
    slides = [slide for _, slide, _ in patches]
    result = fit_calibration(y, [score for *_, score in patches], slides, seed=seed)
    assert isinstance(result, Uncalibrated if min(y.sum(), (~y).sum()) < 2 else Platt)


@pytest.mark.parametrize(
    ("y", "scores"),
    [([True, False], [1.0, np.nan]), ([True, False], [1.0]), ([1.0, 2.0], [True, False])],
    ids=["not finite", "not one for one", "swapped"],
)
def test_unusable_input_is_refused(y: Any, scores: Any) -> None:
    for fit in (fit_platt, fit_isotonic, lambda y, s: fit_calibration(y, s, seed=0)):
        with pytest.raises(ValueError, match=r"scores|labels must be bool"):
            fit(y, scores)
    with pytest.raises(ValueError, match="groups"):
        fit_calibration([True, False], [1.0, 2.0], ["a"], seed=0)


def test_fitted_probabilities_are_calibrated(overlapping: Labeled) -> None:
    y, scores = overlapping
    error, _ = measure_reliability(y, fit_platt(y, scores).probability(scores))
    assert error is not None
    assert error < 0.1
