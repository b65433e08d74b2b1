from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.evaluation.calibration import Isotonic, Platt
from qprd.export.calibration_curves import CalibrationCurve

slopes = st.floats(0, 50)
intercepts = st.floats(-50, 50)
single_scores = st.floats(-10, 10, width=32)
score_lists = st.lists(single_scores, min_size=1, max_size=30)


@st.composite
def isotonics(draw: st.DrawFn) -> Isotonic:
    """Curves with steps, flat stretches and ends of 0 and 1, on scores at least 1/256 apart."""
    places = draw(st.lists(st.integers(-2000, 2000), min_size=1, max_size=12, unique=True))
    heights = draw(st.lists(st.floats(0, 1), min_size=len(places), max_size=len(places)))
    scores = tuple(place / 256 for place in sorted(places))
    return Isotonic(scores, tuple(sorted(heights)), draw(slopes), draw(intercepts))


platts = st.builds(Platt, slope=slopes, intercept=intercepts)
calibrations = st.one_of(platts, isotonics())


@given(calibrations, score_lists)
def test_the_network_has_the_curve_of_the_bundle(
    calibration: Platt | Isotonic, scores: list[float]
) -> None:
    log_normal, log_tumor = CalibrationCurve(calibration)(torch.tensor(scores))
    expected = calibration.probability(scores)
    assert np.allclose(log_tumor.exp(), expected, rtol=0, atol=2e-5)
    assert np.allclose(log_normal.exp(), 1 - expected, rtol=0, atol=2e-5)


@given(calibrations, score_lists)
def test_a_softmax_gives_the_probabilities_back(
    calibration: Platt | Isotonic, scores: list[float]
) -> None:
    logits = torch.stack(CalibrationCurve(calibration)(torch.tensor(scores)), dim=1)
    assert torch.allclose(logits.softmax(1), logits.exp(), rtol=0, atol=1e-6)


@given(isotonics(), score_lists)
def test_a_higher_score_is_never_less_likely_to_be_tumor(
    calibration: Isotonic, scores: list[float]
) -> None:
    log_normal, log_tumor = CalibrationCurve(calibration)(torch.tensor(sorted(scores)))
    # torch's sigmoid and log may be off by a rounding.
    assert (log_tumor.exp().diff() >= -2e-7).all()
    assert (log_normal.exp().diff() <= 2e-7).all()


@given(calibrations)
def test_scores_far_beyond_those_of_the_validation_give_finite_logits(
    calibration: Platt | Isotonic,
) -> None:
    for logits in CalibrationCurve(calibration)(torch.tensor([-1e30, 1e30])):
        assert torch.isfinite(logits).all()


def test_digits_are_kept_where_the_probability_is_close_to_1() -> None:
    log_normal, _ = CalibrationCurve(Platt(1.0, 0.0))(torch.tensor([40.0]))
    assert log_normal.item() == pytest.approx(-40, rel=1e-6)


@pytest.mark.parametrize(
    "calibration", [Platt(1e300, 0.0), Platt(1.0, -1e300), Isotonic((0.0,), (0.5,), 1e300, 0.0)]
)
def test_numbers_beyond_single_precision_are_refused(calibration: Platt | Isotonic) -> None:
    with pytest.raises(QprdError, match="single precision"):
        CalibrationCurve(calibration)
