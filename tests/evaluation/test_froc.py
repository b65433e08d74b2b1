import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from qprd.evaluation.froc import (
    NO_LESIONS,
    NO_SLIDES,
    Matches,
    froc,
    match_detections,
)
from qprd.evaluation.lesions import LesionMap, lesion_map
from qprd.results import Detections

MPP = 0.5
NO_TUMOR = lesion_map(shapely.MultiPolygon(), MPP)


def squares(*places_um: tuple[float, float, float]) -> LesionMap:
    """Lesions: x, y, edge of each in micrometres."""
    boxes = [shapely.box(*(s / MPP for s in (x, y, x + e, y + e))) for x, y, e in places_um]
    return lesion_map(shapely.MultiPolygon(boxes), MPP)


def detected(*points_um: tuple[float, float, float]) -> Detections:
    """Detections: score, x, y of each in micrometres."""
    scores, x, y = np.array(points_um, float).reshape(-1, 3).T
    return Detections(scores, x / MPP, y / MPP)


#: A lesion at 1000..1600, another at 4000..4400, isolated tumor cells at 7000..7050 um.
TRUTH = squares((1000, 1000, 600), (4000, 1000, 400), (7000, 1000, 50))


def test_the_best_hit_counts_once():
    points = detected((0.3, 1100, 1100), (0.9, 1500, 1500), (0.9, 1200, 1200), (0.2, 2500, 1000))
    found = match_detections(points, TRUTH)
    assert found.best.tolist() == [1, -1]
    assert found.best_scores.tolist() == [0.9, -np.inf]
    assert found.false_positives.tolist() == [3]
    assert found.false_positive_scores.tolist() == [0.2]


def test_isolated_tumor_cells_are_neither_lesion_nor_false_positive():
    found = match_detections(detected((0.9, 7025, 1025)), TRUTH)
    assert len(found.lesions) == 2
    assert found.false_positives.size == 0
    curve = froc([found])
    assert curve.lesions == 2
    assert curve.score == 0


def test_all_detections_of_a_slide_without_lesions_are_false_positives():
    """The distance transform of an all-normal mask must not invent a lesion."""
    found = match_detections(detected((0.9, 0, 0), (0.1, 50_000, 80_000)), NO_TUMOR)
    assert found.lesions.size == 0
    assert found.false_positives.tolist() == [0, 1]


def test_a_slide_without_lesions_counts_as_a_slide():
    hit = match_detections(detected((0.5, 1100, 1100), (0.6, 3000, 3000)), TRUTH)
    normal = match_detections(detected((0.7, 0, 0)), NO_TUMOR)
    curve = froc([hit, normal])
    assert curve.slides == 2
    assert curve.thresholds.tolist() == [np.inf, 0.7, 0.6, 0.5]
    assert curve.fp_per_slide.tolist() == [0, 0.5, 1, 1]
    assert curve.sensitivity.tolist() == [0, 0, 0, 0.5]
    # 0 up to and including the rate just below 1, then 0.5.
    assert curve.at_rates == (0, 0, 0.5, 0.5, 0.5, 0.5)
    assert curve.score == pytest.approx(2 / 6)


def test_the_lowest_threshold_is_kept():
    """Dropping the lowest score loses a lesion that is hit by it alone."""
    found = match_detections(detected((0.9, 1100, 1100), (0.1, 4100, 1100)), TRUTH)
    curve = froc([found])
    assert curve.thresholds[-1] == 0.1
    assert curve.sensitivity[-1] == 1
    assert curve.score == 1


def test_a_missed_lesion_adds_no_threshold():
    """The challenge's script scores misses 0, which would be a threshold that hits them all."""
    curve = froc([match_detections(detected((0.9, 1100, 1100)), TRUTH)])
    assert curve.thresholds.tolist() == [np.inf, 0.9]
    assert curve.sensitivity.tolist() == [0, 0.5]


@pytest.mark.parametrize("score", [0.0, -2.0])
def test_a_hit_counts_whatever_its_score(score: float):
    curve = froc([match_detections(detected((score, 1100, 1100)), TRUTH)])
    assert curve.sensitivity[-1] == 0.5


def test_between_two_rates_sensitivity_is_interpolated():
    truth = squares((1000, 1000, 600))
    # At 0.5 the lesion and four false positives come at once: 0 -> 4 per slide.
    points = [(0.5, 1100.0, 1100.0)] + [(0.5, 3000.0 + i, 3000.0) for i in range(4)]
    curve = froc([match_detections(detected(*points), truth)])
    assert curve.at_rates == pytest.approx((1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1))


def test_undefined_says_why():
    without_slides = froc([])
    assert (without_slides.score, without_slides.reason) == (None, NO_SLIDES)
    assert without_slides.at_rates is None
    curve = froc([match_detections(detected((0.5, 0, 0)), NO_TUMOR)])
    assert (curve.score, curve.at_rates, curve.reason) == (None, None, NO_LESIONS)
    assert curve.fp_per_slide.tolist() == [0, 1]
    assert np.isnan(curve.sensitivity).all()
    only_itc = match_detections(detected(), squares((1000, 1000, 50)))
    assert froc([only_itc]).reason == NO_LESIONS


def test_without_detections_the_score_is_0():
    curve = froc([match_detections(detected(), TRUTH)])
    assert curve.score == 0
    assert curve.reason is None


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_must_be_finite(score: float):
    with pytest.raises(ValueError, match="finite"):
        match_detections(detected((score, 0, 0)), TRUTH)


# Invariants, on slides as the curve sees them.

#: Few distinct values, so that ties are common.
some_scores = st.lists(st.integers(0, 6).map(float), max_size=12)


@st.composite
def matches(draw: st.DrawFn) -> Matches:
    best = np.array(draw(st.lists(st.integers(-1, 6).map(float), max_size=5)), float)
    best[best < 0] = -np.inf
    false = np.array(draw(some_scores), float)
    n = len(best)
    is_hit = np.isfinite(best)
    index = np.where(is_hit, np.cumsum(is_hit) - 1, -1)
    return Matches(np.arange(n) + 1, index, best, np.arange(len(false)), false)


projects = st.lists(matches(), min_size=1, max_size=4)


@given(projects)
def test_the_curve_ascends_from_nothing_to_all_detections(slides: list[Matches]):
    curve = froc(slides)
    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.fp_per_slide) >= 0).all()
    assert curve.fp_per_slide[0] == 0
    false = sum(m.false_positives.size for m in slides)
    assert curve.fp_per_slide[-1] == pytest.approx(false / len(slides))
    if curve.score is not None:
        assert (np.diff(curve.sensitivity) >= 0).all()
        hits = sum(int((m.best >= 0).sum()) for m in slides)
        assert curve.sensitivity[-1] == pytest.approx(hits / curve.lesions)
        assert 0 <= curve.score <= 1


@given(projects, st.integers(-1, 7))
def test_another_false_positive_never_raises_sensitivity(slides: list[Matches], score: int):
    first = slides[0]
    worse = Matches(
        first.lesions,
        first.best,
        first.best_scores,
        np.arange(len(first.false_positives) + 1),
        np.append(first.false_positive_scores, float(score)),
    )
    before, after = froc(slides), froc([worse, *slides[1:]])
    if before.at_rates is not None and after.at_rates is not None:
        assert (np.array(after.at_rates) <= np.array(before.at_rates) + 1e-12).all()


@given(projects)
def test_only_the_order_of_scores_matters(slides: list[Matches]):
    def rescaled(m: Matches) -> Matches:
        with np.errstate(over="ignore"):
            hit, false = np.exp(m.best_scores) - 5, np.exp(m.false_positive_scores) - 5
        hit[m.best < 0] = -np.inf
        return Matches(m.lesions, m.best, hit, m.false_positives, false)

    before, after = froc(slides), froc([rescaled(m) for m in slides])
    np.testing.assert_array_equal(before.fp_per_slide, after.fp_per_slide)
    np.testing.assert_array_equal(before.sensitivity, after.sensitivity)
    assert before.score == after.score


@given(projects, st.randoms(use_true_random=False))
def test_the_order_of_slides_does_not_matter(slides: list[Matches], random):
    shuffled = list(slides)
    random.shuffle(shuffled)
    assert froc(slides).score == froc(shuffled).score


@given(projects)
def test_doubling_every_slide_changes_nothing(slides: list[Matches]):
    once, twice = froc(slides), froc([*slides, *slides])
    np.testing.assert_allclose(once.fp_per_slide, twice.fp_per_slide)
    assert once.score == (None if twice.score is None else pytest.approx(twice.score))
