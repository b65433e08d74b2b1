from __future__ import annotations

import numpy as np
from hypothesis import given
from sklearn.metrics import accuracy_score

from qprd.evaluation.metrics import accuracy
from qprd.evaluation.thresholds import accuracy_threshold
from tests.helpers.labeled_scores import samples, split


@given(samples)
def test_no_threshold_is_more_accurate_than_the_fitted_one(pairs: list[tuple[bool, float]]) -> None:
    y, s = split(pairs)
    fitted = accuracy_threshold(y, s)
    if y.all() or not y.any():
        assert fitted is None
        return
    assert fitted is not None
    everywhere = [*s, s.max() + 1]
    assert fitted.accuracy == max(accuracy_score(y, s >= threshold) for threshold in everywhere)
    assert accuracy(y, s, fitted.value) == fitted.accuracy
    assert fitted.lowest < fitted.value <= fitted.highest
    assert accuracy_threshold(y[::-1], s[::-1]) == fitted  # the order of the patches is nothing


def test_threshold_is_the_middle_of_the_widest_best_gap() -> None:
    # 3 of 4 right both in (1, 2] and in (3, 6]; the second gap is wider.
    fitted = accuracy_threshold([False, True, False, True], [1.0, 2.0, 3.0, 6.0])
    assert fitted is not None
    assert (fitted.value, fitted.accuracy) == (4.5, 0.75)
    assert (fitted.lowest, fitted.highest) == (3.0, 6.0)


def test_equally_wide_gaps_give_the_lowest_threshold() -> None:
    fitted = accuracy_threshold([False, True, False, True], [1.0, 2.0, 3.0, 4.0])
    assert fitted is not None
    assert fitted.value == 1.5


def test_scores_the_wrong_way_around_call_the_larger_class() -> None:
    all_tumor = accuracy_threshold([True, True, False], [1.0, 1.0, 2.0])
    none_tumor = accuracy_threshold([False, False, True], [2.0, 2.0, 1.0])
    assert all_tumor is not None
    assert none_tumor is not None
    assert all_tumor.value == 1.0
    assert none_tumor.value == np.nextafter(2.0, 3.0)


def test_threshold_between_neighboring_numbers_still_separates_them() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2.0))
    fitted = accuracy_threshold([False, True], [low, high])
    assert fitted is not None
    assert (fitted.value, fitted.accuracy) == (high, 1.0)
