from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.evaluation.reliability import measure_reliability


def test_calibration_error_of_known_cases() -> None:
    assert measure_reliability([False, True], [0.0, 1.0])[0] == 0
    assert measure_reliability([True, False], [0.0, 1.0])[0] == 1
    # Bin 0.2..0.3: mean .25, none tumor; bin 0.7..0.8: mean .75, half tumor.
    error = measure_reliability([False, False, True, False], [0.25, 0.25, 0.75, 0.75])[0]
    assert error == pytest.approx((2 * 0.25 + 2 * 0.25) / 4)
    assert measure_reliability([False, True], [0.25, np.nan])[0] == 0.25
    assert measure_reliability([True], [np.nan])[0] is None
    with pytest.raises(ValueError, match="between"):
        measure_reliability([True], [1.5])[0]


def test_bins_hold_what_fell_into_them() -> None:
    low, high = measure_reliability(
        [False, True, True, True, True], [0.0, 0.2, 0.5, 1.0, np.nan], n_bins=2
    )[1]
    assert (low.count, low.mean_probability, low.fraction_tumor) == (2, 0.1, 0.5)
    assert (high.count, high.mean_probability, high.fraction_tumor) == (2, 0.75, 1.0)
    empty = measure_reliability([True], [0.9], n_bins=2)[1][0]
    assert (empty.count, empty.mean_probability, empty.fraction_tumor) == (0, None, None)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_balanced_is_as_if_the_rarer_class_were_there_more_often(
    points: list[tuple[bool, float]],
) -> None:
    normal = [(y, p) for y, p in points if not y] or [(False, 0.5)]
    tumor = [(y, p) for y, p in points if y] or [(True, 0.25)]
    repeated = [*normal * len(tumor), *tumor * len(normal)]
    balanced, own = measure_reliability(*zip(*normal, *tumor, strict=True), balanced=True)
    plain, others = measure_reliability(*zip(*repeated, strict=True))
    assert balanced == pytest.approx(plain, abs=1e-9)
    for one, other in zip(own, others, strict=True):
        assert one.mean_probability == pytest.approx(other.mean_probability, abs=1e-9)
        assert one.fraction_tumor == pytest.approx(other.fraction_tumor, abs=1e-9)


def test_balanced_needs_both_classes() -> None:
    for only in (True, False):
        assert measure_reliability([only, only], [0.5, 0.7], balanced=True) == (None, ())


def test_swapped_labels_and_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be bool"):
        measure_reliability([0.2, 0.9], [False, True])
