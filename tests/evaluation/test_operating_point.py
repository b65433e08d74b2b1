from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import accuracy_score

from qprd.checked import Rule
from qprd.evaluation import operating_point
from qprd.evaluation.metrics import accuracy
from qprd.evaluation.operating_point import (
    FalsePositives,
    NoThreshold,
    ValidationScores,
    accuracy_threshold,
    achieved_at,
    choose_threshold,
    youden_threshold,
)
from tests.helpers.labeled_scores import samples, split

score = st.floats(-50, 50, width=32)
some_scores = st.lists(score, min_size=1, max_size=30)


def scored(tumor: list[float], normal: list[float]) -> ValidationScores:
    y = np.arange(len(tumor) + len(normal)) < len(tumor)
    return ValidationScores.of(y, np.array(tumor + normal, np.float32))


def chosen(rule: str, validation: ValidationScores) -> float:
    threshold = choose_threshold(Rule.parse(rule), validation)
    assert isinstance(threshold, float)
    return threshold


@given(some_scores, some_scores, st.floats(1e-12, 1))
def test_sensitivity_is_met_by_the_highest_threshold(
    tumor: list[float], normal: list[float], least: float
) -> None:
    validation = scored(tumor, normal)
    threshold = chosen(f"sensitivity={least!r}", validation)
    achieved = achieved_at(threshold, validation).sensitivity
    assert achieved is not None
    assert achieved >= Rule.parse(f"sensitivity={least!r}").value - 1e-9  # type: ignore[operator]
    higher = achieved_at(math.nextafter(threshold, math.inf), validation).sensitivity
    assert higher is not None
    assert higher < least


def test_sensitivity_counts_whole_patches() -> None:
    validation = scored([float(n) for n in range(20)], [0.0])
    assert chosen("sensitivity=0.95", validation) == 1.0  # 19 of 20, and not 20
    assert chosen("sensitivity=1", validation) == 0.0
    assert chosen("sensitivity=1e-12", validation) == 19.0


@given(some_scores, some_scores)
def test_youden_finds_the_largest_sum_of_sensitivity_and_specificity(
    tumor: list[float], normal: list[float]
) -> None:
    validation = scored(tumor, normal)

    def index(threshold: float) -> float:
        achieved = achieved_at(threshold, validation)
        assert achieved.sensitivity is not None
        assert achieved.specificity is not None
        return achieved.sensitivity + achieved.specificity

    candidates = [*tumor, *normal, 1000.0]
    assert index(chosen("youden", validation)) == pytest.approx(max(map(index, candidates)))


@given(st.lists(st.tuples(score, score), min_size=1, max_size=30))
def test_youden_is_accuracy_where_the_classes_are_equally_large(
    pairs: list[tuple[float, float]],
) -> None:
    tumor, normal = (list(scores) for scores in zip(*pairs, strict=True))
    y, scores = scored(tumor, normal).labeled()
    assert youden_threshold(y, scores) == accuracy_threshold(y, scores)
    assert chosen("accuracy", scored(tumor, normal)) == chosen("youden", scored(tumor, normal))


def test_youden_does_not_follow_the_larger_class() -> None:
    validation = scored([1.0, 3.0], [*[0.0] * 50, *[2.0] * 3])
    assert achieved_at(chosen("accuracy", validation), validation).sensitivity == 0.5
    assert achieved_at(chosen("youden", validation), validation).sensitivity == 1.0


@given(some_scores, st.integers(1, 5), st.floats(0, 10))
def test_false_positives_are_met_by_the_lowest_threshold(
    found: list[float], slides: int, most: float
) -> None:
    false_positives = FalsePositives(tuple(sorted(found, reverse=True)), slides)
    validation = ValidationScores((), (), false_positives)
    threshold = chosen(f"fp-per-slide={most!r}", validation)
    most = Rule.parse(f"fp-per-slide={most!r}").value or 0.0
    per_slide = achieved_at(threshold, validation).false_positives_per_slide
    assert per_slide is not None
    assert per_slide <= most + 1e-8
    if threshold > min(found):
        lower = false_positives.per_slide(math.nextafter(threshold, -math.inf))
        assert lower is not None
        assert lower > most - 1e-8


def test_a_known_case_of_false_positives() -> None:
    validation = ValidationScores((), (), FalsePositives((5.0, 4.0, 4.0, 3.0, 2.0), 2))
    for most, count in ((0, 0), (0.5, 1), (1, 1), (1.5, 3), (2.4, 4), (50, 5)):
        threshold = chosen(f"fp-per-slide={most}", validation)
        assert (np.array([5.0, 4.0, 4.0, 3.0, 2.0]) >= threshold).sum() == count
    assert achieved_at(4.0, validation).false_positives_per_slide == 1.5


def test_without_what_it_needs_a_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    only_normal = scored([], [1.0])
    for rule, validation, told in (
        ("accuracy", only_normal, "both classes"),
        ("youden", only_normal, "both classes"),
        ("sensitivity=1", only_normal, "both classes"),
        ("fp-per-slide=1", scored([2.0], [1.0]), "not counted"),
        ("fp-per-slide=1", ValidationScores((), (), FalsePositives((), 1)), "was scored"),
    ):
        result = choose_threshold(Rule.parse(rule), validation)
        assert isinstance(result, NoThreshold)
        assert told in result.reason
    # More false positives than are kept: their number is not known below the last one.
    monkeypatch.setattr(operating_point, "MAX_FALSE_POSITIVES", 3)
    cut_off = ValidationScores((), (), FalsePositives((3.0, 2.0, 1.0), 1))
    assert isinstance(choose_threshold(Rule.parse("fp-per-slide=3"), cut_off), NoThreshold)
    assert achieved_at(0.0, cut_off).false_positives_per_slide is None
    assert chosen("fp-per-slide=2", cut_off) == math.nextafter(1.0, 2.0)


def test_figures_that_are_not_defined_are_none_and_not_told() -> None:
    achieved = achieved_at(0.5, scored([], [0.0, 1.0]))
    assert (achieved.sensitivity, achieved.specificity, achieved.accuracy) == (None, 0.5, 0.5)
    assert str(achieved) == "specificity 0.500, accuracy 0.500"


@given(some_scores, some_scores)
def test_validation_scores_survive_json_and_do_not_depend_on_the_order(
    tumor: list[float], normal: list[float]
) -> None:
    validation = scored(tumor, normal)
    assert scored(tumor[::-1], normal[::-1]) == validation
    adapter = TypeAdapter(ValidationScores)
    assert adapter.validate_json(adapter.dump_json(validation), strict=True) == validation
    assert validation.range == (min(tumor + normal), max(tumor + normal))


@pytest.mark.parametrize(
    "text",
    [
        '{"tumor": [1], "normal": ["a"]}',
        '{"tumor": [1], "normal": [1e39]}',
        '{"tumor": [1], "normal": null}',
        '{"tumor": [], "normal": [], "false_positives": {"scores": [1, 2], "slides": 1}}',
        '{"tumor": [], "normal": [], "false_positives": {"scores": [1], "slides": 0}}',
        f'{{"tumor": [], "normal": [{"0," * 20_000}0]}}',
    ],
)
def test_validation_scores_of_strangers_are_checked(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ValidationScores).validate_json(text, strict=True)


def test_swapped_labels_and_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="labels must be bool"):
        ValidationScores.of(np.array([1.0, 2.0]), np.array([True, False]))


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
    assert accuracy_threshold(y[::-1], s[::-1]) == fitted  # the order of the patches is nothing


def test_threshold_is_the_middle_of_the_widest_best_gap() -> None:
    # 3 of 4 right both in (1, 2] and in (3, 6]; the second gap is wider.
    fitted = accuracy_threshold([False, True, False, True], [1.0, 2.0, 3.0, 6.0])
    assert fitted is not None
    assert (fitted.value, fitted.accuracy) == (4.5, 0.75)


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
