from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.evaluation import bootstrap
from qprd.evaluation.bootstrap import (
    froc_interval,
    patch_intervals,
    slide_intervals,
    sum_intervals,
)
from qprd.evaluation.cells import LabeledScores
from qprd.evaluation.froc import Matches, froc
from qprd.evaluation.metrics import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    sensitivity,
    specificity,
)

AT_THRESHOLD = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
}
RANKING = {"auroc": auroc, "average_precision": average_precision}


def slide(seed: int, n: int = 60, *, tumor: float = 0.4, shift: float = 1.5) -> LabeledScores:
    random = np.random.default_rng(seed)
    y = random.random(n) < tumor
    return LabeledScores(y, (random.normal(size=n) + shift * y).astype(np.float32))


@pytest.mark.parametrize("levels", [10_000, 64])
def test_every_resample_is_measured_as_sklearn_does(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_LEVELS", levels)
    slides = [slide(seed) for seed in range(4)]
    counts, first = bootstrap._counts(slides, 0.7)
    drawn = bootstrap._multiplicities(np.ones(4, dtype=bool), np.random.default_rng(3))[:20]
    exact = levels > 240
    for times in drawn:
        chosen = [s for s, n in zip(slides, times.astype(int), strict=True) for _ in range(n)]
        y = np.concatenate([s.y_true for s in chosen])
        scores = np.concatenate([s.scores for s in chosen])
        of_resample = np.tensordot(times, counts, axes=1)[None]
        for name, (measure, _) in bootstrap._METRICS.items():
            (value,) = measure(of_resample, first)
            if name in RANKING:
                expected = RANKING[name](y, scores)
                assert value == pytest.approx(expected, abs=1e-9 if exact else 0.02)
            else:
                assert value == pytest.approx(AT_THRESHOLD[name](y, scores, 0.7))


def test_intervals_hold_the_figure_and_are_the_same_every_time() -> None:
    slides = [slide(seed) for seed in range(8)]
    y = np.concatenate([s.y_true for s in slides])
    scores = np.concatenate([s.scores for s in slides])
    found = patch_intervals(slides, threshold=0.7)
    assert found == patch_intervals(slides, threshold=0.7)
    assert set(found) == {*RANKING, *AT_THRESHOLD}
    for name, interval in found.items():
        value = RANKING[name](y, scores) if name in RANKING else AT_THRESHOLD[name](y, scores, 0.7)
        assert value is not None
        assert 0 <= interval.low < value < interval.high <= 1
        assert interval.unit == "slides"
        assert interval.undefined == 0


def test_slides_that_differ_give_wider_intervals_than_their_patches_would() -> None:
    unlike = [slide(seed, shift=shift) for seed, shift in enumerate((0.2, 0.5, 2.5, 3.0))]
    (over_slides,) = (patch_intervals(unlike, threshold=None)["auroc"],)
    merged = LabeledScores(
        np.concatenate([s.y_true for s in unlike]), np.concatenate([s.scores for s in unlike])
    )
    over_patches = patch_intervals([merged], threshold=None)["auroc"]
    assert (over_slides.unit, over_patches.unit) == ("slides", "patches")
    assert over_slides.high - over_slides.low > 1.5 * (over_patches.high - over_patches.low)


def test_patches_of_one_slide_give_the_textbook_interval() -> None:
    one = slide(0, 1000)
    found = patch_intervals([one], threshold=0.7)
    for name, label in (("sensitivity", True), ("specificity", False)):
        n = int((one.y_true == label).sum())
        p = AT_THRESHOLD[name](one.y_true, one.scores, 0.7)
        assert p is not None
        half = 1.96 * np.sqrt(p * (1 - p) / n)
        assert found[name].unit == "patches"
        assert found[name].low == pytest.approx(p - half, abs=0.25 * half)
        assert found[name].high == pytest.approx(p + half, abs=0.25 * half)


def test_the_unit_is_slides_only_where_two_of_them_hold_the_class() -> None:
    tumor, normal = slide(0, tumor=1.0), [slide(seed, tumor=0.0) for seed in (1, 2, 3)]
    found = patch_intervals([tumor, *normal], threshold=0.7)
    units = {name: interval.unit for name, interval in found.items()}
    assert units["specificity"] == "slides"
    assert units["sensitivity"] == units["auroc"] == units["accuracy"] == "patches"
    assert found["specificity"].size == 3
    assert found["sensitivity"].size == int(tumor.y_true.sum())


def test_an_interval_says_how_many_slides_it_is_drawn_from() -> None:
    both, normal = [slide(0), slide(1)], [slide(seed, tumor=0.0) for seed in (2, 3, 4)]
    found = patch_intervals([*both, *normal], threshold=0.7)
    assert {name: interval.size for name, interval in found.items()} == {
        **dict.fromkeys(("auroc", "average_precision", "sensitivity"), 2),
        **dict.fromkeys(("accuracy", "balanced_accuracy"), 2),
        "specificity": 5,
    }
    of_slides = slide_intervals([True] * 3 + [False] * 4, [3.0, 1.0, 2.0, 0.0, 1.5, 0.5, 0.2])
    assert of_slides["auroc"].size == 3


def test_resamples_without_a_class_are_counted_and_left_out() -> None:
    # Half of the tumor slides have normal tissue, too: a draw may miss it.
    slides = [slide(0, tumor=1.0), slide(1, tumor=1.0), slide(2), slide(3)]
    interval = patch_intervals(slides, threshold=None)["auroc"]
    # Four draws out of four slides miss both of two with a chance of 1 / 16.
    assert interval.undefined == pytest.approx(bootstrap.RESAMPLES / 16, rel=0.3)


def test_what_is_undefined_has_no_interval() -> None:
    only_true = [slide(seed, tumor=1.0) for seed in range(3)]
    assert set(patch_intervals(only_true, threshold=0.0)) == {"accuracy", "sensitivity"}
    assert set(patch_intervals(only_true, threshold=None)) == set()
    nothing = LabeledScores(np.zeros(0, bool), np.zeros(0, np.float32))
    assert patch_intervals([nothing], threshold=0.5) == {}
    assert patch_intervals([], threshold=0.5) == {}


def test_slide_scores_need_two_slides_of_each_label() -> None:
    random = np.random.default_rng(0)
    y = np.arange(40) % 2 == 0
    scores = random.normal(size=40) + y
    found = slide_intervals(y, scores)
    assert set(found) == set(RANKING)
    for name, interval in found.items():
        value = RANKING[name](y, scores)
        assert value is not None
        assert interval.unit == "slides"
        assert interval.low < value < interval.high
    assert slide_intervals([True, False, False], [3.0, 1.0, 2.0]) == {}


def hit(best: list[float], false: list[float]) -> Matches:
    """Lesions by the score of their best detection, -inf if missed; false positives."""
    return Matches(np.array(best, np.float64), np.arange(len(false)), np.array(false, np.float64))


@pytest.mark.parametrize("levels", [2048, 8])
def test_the_interval_of_the_froc_is_that_of_drawing_slides(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 150)
    monkeypatch.setattr(bootstrap, "_LEVELS", levels)
    random = np.random.default_rng(0)
    slides = [hit([0.9, -np.inf], [0.8, 0.3]), hit([0.4], [0.5, 0.5]), hit([], [0.95, 0.1])]
    slides += [hit([float(v)], random.random(6).tolist()) for v in random.random(3)]
    interval = froc_interval(slides)
    with_lesions = np.array([s.best_scores.size > 0 for s in slides])
    drawn = bootstrap._multiplicities(with_lesions, np.random.default_rng(0)).astype(int)
    scores = [froc([slides[i] for i in np.repeat(np.arange(6), times)]).score for times in drawn]
    expected = np.percentile(np.array(scores, float), [2.5, 97.5])
    assert interval is not None
    exact = levels > 100
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9 if exact else 0.1)
    assert froc_interval(slides[1:3]) is None


def test_intervals_of_sums() -> None:
    parts = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 5.0]])

    def ratio(sums: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(sums[:, 0] / sums[:, 1])

    found = sum_intervals(parts, {"ratio": ratio}, has_tumor=[True, True, False])["ratio"]
    # The slide without tumor is always in; the others are drawn twice out of two.
    assert found.low == pytest.approx(2 / 9)
    assert found.high == pytest.approx(6 / 13)
    assert sum_intervals(parts, {"ratio": ratio}, has_tumor=[True, False, False]) == {}


@given(st.floats(-10, 10))
def test_no_level_straddles_the_threshold(threshold: float) -> None:
    slides = [slide(0), slide(1)]
    counts, first = bootstrap._counts(slides, threshold)
    above = sum(int((s.scores.astype(float) >= threshold).sum()) for s in slides)
    assert counts[:, :, first:].sum() == above
    assert counts.sum() == 120
