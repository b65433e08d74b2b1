from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, box
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    recall_score,
)

from qprd.evaluation.metrics import (
    accuracy,
    accuracy_threshold,
    auroc,
    average_precision,
    balanced_accuracy,
    labeled_cells,
    sensitivity,
    specificity,
    tile_auroc,
)
from qprd.predictions import ScoreMap

#: Few distinct values, so that ties within and between the classes are common.
samples = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(0, 5).map(float), st.floats(0, 6))),
    min_size=1,
    max_size=30,
)


def split(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.array([y for y, _ in pairs]), np.array([s for _, s in pairs])


@given(samples)
def test_auroc_is_the_chance_that_a_tumor_scores_higher(pairs: list[tuple[bool, float]]) -> None:
    y, s = split(pairs)
    if y.all() or not y.any():
        assert auroc(y, s) is None
    else:
        tumor, normal = s[y][:, None], s[~y][None, :]
        assert auroc(y, s) == pytest.approx(np.mean((tumor > normal) + 0.5 * (tumor == normal)))


@given(samples, st.floats(-1, 7))
def test_accuracies_agree_with_sklearn(pairs: list[tuple[bool, float]], threshold: float) -> None:
    y, s = split(pairs)
    assert accuracy(y, s, threshold) == pytest.approx(accuracy_score(y, s >= threshold))
    if y.all() or not y.any():
        assert balanced_accuracy(y, s, threshold) is None
    else:
        expected = balanced_accuracy_score(y, s >= threshold)
        assert balanced_accuracy(y, s, threshold) == pytest.approx(expected)


@given(samples, st.floats(-1, 7))
def test_the_other_figures_agree_with_sklearn(
    pairs: list[tuple[bool, float]], threshold: float
) -> None:
    y, s = split(pairs)
    both = y.any() and not y.all()
    expected = average_precision_score(y, s) if both else None
    assert average_precision(y, s) == (None if expected is None else pytest.approx(expected))
    for function, label in ((sensitivity, True), (specificity, False)):
        if (y == label).any():
            recall = recall_score(y, s >= threshold, pos_label=label, zero_division=0)
            assert function(y, s, threshold) == pytest.approx(recall)
        else:
            assert function(y, s, threshold) is None


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


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([True], [1.0, 2.0], "one for one"),
        ([True, False], [1.0, np.nan], "finite"),
        ([1, 0], [1.0, 2.0], "bool"),
    ],
)
def test_unusable_labels_and_scores_are_refused(labels: Any, scores: Any, message: str) -> None:
    for function in (auroc, accuracy_threshold):
        with pytest.raises(ValueError, match=message):
            function(labels, scores)


def test_accuracy_of_nothing_is_none() -> None:
    assert accuracy([], [], 1.0) is None


SCORE_MAP = ScoreMap(
    np.array([[1, 2, 3], [4, 5, np.nan]], dtype=np.float32), x=100, y=50, cell_px=10, mpp=0.5
)


def test_cells_are_labeled_by_where_their_center_lies() -> None:
    # Left column is normal; the right two are tumor, but for the middle top one, which is both.
    cells = labeled_cells(
        SCORE_MAP, tumor=box(110, 50, 130, 70), normal=box(100, 50, 110, 70) | box(112, 50, 118, 60)
    )
    found = zip(cells.scores.tolist(), cells.y_tumor.tolist(), cells.x, cells.y, strict=True)
    assert list(found) == [
        (1.0, False, 105, 55),
        (3.0, True, 125, 55),
        (4.0, False, 105, 65),
        (5.0, True, 115, 65),
    ]


def test_cells_in_holes_and_outside_all_regions_have_no_label() -> None:
    ring = box(0, 0, 200, 200) - box(110, 50, 120, 60)
    cells = labeled_cells(SCORE_MAP, tumor=ring, normal=Polygon())
    assert cells.y_tumor.all()
    assert sorted(cells.scores.tolist()) == [1, 3, 4, 5]


def test_tile_auroc_is_that_of_the_labeled_cells() -> None:
    right, left = box(120, 50, 130, 70), box(100, 50, 110, 70)
    # Tumor 3; normal 1 and 4.
    assert tile_auroc(SCORE_MAP, tumor=right, normal=left) == 0.5
    assert tile_auroc(SCORE_MAP, tumor=right, normal=Polygon()) is None
