from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    recall_score,
)

from qprd.evaluation.metrics import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    sensitivity,
    specificity,
)
from tests.helpers.labeled_scores import samples, split


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


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([True], [1.0, 2.0], "one for one"),
        ([True, False], [1.0, np.nan], "finite"),
        ([1, 0], [1.0, 2.0], "bool"),
    ],
)
def test_unusable_labels_and_scores_are_refused(labels: Any, scores: Any, message: str) -> None:
    for function in (auroc, average_precision):
        with pytest.raises(ValueError, match=message):
            function(labels, scores)


def test_swapped_labels_and_scores_are_refused() -> None:
    labels, scores = np.array([True, False]), np.array([2.0, 1.0])
    for metric in (auroc, average_precision):
        with pytest.raises(ValueError, match="labels must be bool"):
            metric(scores, labels)
    for metric_at in (accuracy, balanced_accuracy, sensitivity, specificity):
        with pytest.raises(ValueError, match="labels must be bool"):
            metric_at(scores, labels, 1.5)


def test_accuracy_of_nothing_is_none() -> None:
    assert accuracy([], [], 1.0) is None
