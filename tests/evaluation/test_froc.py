from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from qprd.evaluation.froc import (
    NO_LESIONS,
    NO_SLIDES,
    Froc,
    Matches,
    froc,
    match_points,
)
from qprd.evaluation.lesions import LesionMap, lesion_map
from qprd.predictions import LesionPoints
from qprd.qupath.asap import read_asap

MPP = 0.5
NO_TUMOR = lesion_map(shapely.MultiPolygon(), MPP)


def squares(*places_um: tuple[float, float, float]) -> LesionMap:
    """Lesions: x, y, edge of each in micrometers."""
    boxes = [shapely.box(*(s / MPP for s in (x, y, x + e, y + e))) for x, y, e in places_um]
    return lesion_map(shapely.MultiPolygon(boxes), MPP)


def detected(*points_um: tuple[float, float, float]) -> LesionPoints:
    """Lesion points: score, x, y of each in micrometers."""
    scores, x, y = np.array(points_um, float).reshape(-1, 3).T
    return LesionPoints(scores, x / MPP, y / MPP)


#: A lesion at 1000..1600, another at 4000..4400, isolated tumor cells at 7000..7050 um.
TRUTH = squares((1000, 1000, 600), (4000, 1000, 400), (7000, 1000, 50))


def test_the_best_hit_counts_once() -> None:
    points = detected((0.3, 1100, 1100), (0.9, 1500, 1500), (0.9, 1200, 1200), (0.2, 2500, 1000))
    found = match_points(points, TRUTH)
    assert found.best_scores.tolist() == [0.9, -np.inf]
    assert found.false_positives.tolist() == [3]
    assert found.false_positive_scores.tolist() == [0.2]


def test_isolated_tumor_cells_are_neither_lesion_nor_false_positive() -> None:
    found = match_points(detected((0.9, 7025, 1025)), TRUTH)
    assert found.best_scores.size == 2
    assert found.false_positives.size == 0
    curve = froc([found])
    assert curve.lesions == 2
    assert curve.score == 0


def test_all_points_of_a_slide_without_lesions_are_false_positives() -> None:
    """The distance transform of an all-normal mask must not invent a lesion."""
    found = match_points(detected((0.9, 0, 0), (0.1, 50_000, 80_000)), NO_TUMOR)
    assert found.best_scores.size == 0
    assert found.false_positives.tolist() == [0, 1]


def test_a_slide_without_lesions_counts_as_a_slide() -> None:
    hit = match_points(detected((0.5, 1100, 1100), (0.6, 3000, 3000)), TRUTH)
    normal = match_points(detected((0.7, 0, 0)), NO_TUMOR)
    curve = froc([hit, normal])
    assert curve.slides == 2
    assert curve.thresholds.tolist() == [np.inf, 0.7, 0.6, 0.5]
    assert curve.fp_per_slide.tolist() == [0, 0.5, 1, 1]
    assert curve.sensitivity.tolist() == [0, 0, 0, 0.5]
    # 0 up to and including the rate just below 1, then 0.5.
    assert curve.at_rates is not None
    assert list(curve.at_rates) == [0, 0, 0.5, 0.5, 0.5, 0.5]
    assert curve.score == pytest.approx(2 / 6)


def test_the_lowest_threshold_is_kept() -> None:
    """Dropping the lowest score loses a lesion that is hit by it alone."""
    found = match_points(detected((0.9, 1100, 1100), (0.1, 4100, 1100)), TRUTH)
    curve = froc([found])
    assert curve.thresholds[-1] == 0.1
    assert curve.sensitivity[-1] == 1
    assert curve.score == 1


def test_a_missed_lesion_adds_no_threshold() -> None:
    """The challenge's script scores misses 0, which would be a threshold that hits them all."""
    curve = froc([match_points(detected((0.9, 1100, 1100)), TRUTH)])
    assert curve.thresholds.tolist() == [np.inf, 0.9]
    assert curve.sensitivity.tolist() == [0, 0.5]


@pytest.mark.parametrize("score", [0.0, -2.0])
def test_a_hit_counts_whatever_its_score(score: float) -> None:
    curve = froc([match_points(detected((score, 1100, 1100)), TRUTH)])
    assert curve.sensitivity[-1] == 0.5


def test_between_two_rates_sensitivity_is_interpolated() -> None:
    truth = squares((1000, 1000, 600))
    # At 0.5 the lesion and four false positives come at once: 0 -> 4 per slide.
    points = [(0.5, 1100.0, 1100.0)] + [(0.5, 3000.0 + i, 3000.0) for i in range(4)]
    curve = froc([match_points(detected(*points), truth)])
    assert curve.at_rates == pytest.approx((1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1))


def test_undefined_says_why() -> None:
    without_slides = froc([])
    assert (without_slides.score, without_slides.reason) == (None, NO_SLIDES)
    assert without_slides.at_rates is None
    curve = froc([match_points(detected((0.5, 0, 0)), NO_TUMOR)])
    assert (curve.score, curve.at_rates, curve.reason) == (None, None, NO_LESIONS)
    assert curve.fp_per_slide.tolist() == [0, 1]
    assert np.isnan(curve.sensitivity).all()
    only_itc = match_points(detected(), squares((1000, 1000, 50)))
    assert froc([only_itc]).reason == NO_LESIONS


def test_without_points_the_score_is_0() -> None:
    curve = froc([match_points(detected(), TRUTH)])
    assert curve.score == 0
    assert curve.reason is None


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_must_be_finite(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        match_points(detected((score, 0, 0)), TRUTH)


# The rules once more, in plain loops, on the lesions of real slides.


@dataclass
class PlainSlide:
    """A slide as the challenge's script sees it: a mask of level 5, and lists of points."""

    mask: np.ndarray
    scores: list[float]
    x: list[float]
    y: list[float]


def plain_froc(
    slides: list[PlainSlide],
    *,
    takes_all_for_normal: bool = False,
    drops_lowest: bool = False,
    invents_lesions: bool = False,
) -> tuple[list[float], list[float], float]:
    """FP per slide, sensitivity and score by method.md; each fault can be switched on."""
    mpp, level = 0.243, 5
    hits, false, lesions = [], [], 0
    for slide in slides:
        labels = np.zeros(slide.mask.shape, int)
        if slide.mask.any() or invents_lesions:
            distance = ndimage.distance_transform_edt(~slide.mask)
            near = distance < 75 / (mpp * 2**level * 2)
            labels = measure.label(ndimage.binary_fill_holes(near), connectivity=2)
        best: dict[int, float] = {}
        itc = []
        for region in measure.regionprops(labels):
            if region.axis_major_length < 275 / (mpp * 2**level):
                itc.append(region.label)
            else:
                best[region.label] = -np.inf
        for score, x, y in zip(slide.scores, slide.x, slide.y, strict=True):
            label = labels[int(y / 2**level), int(x / 2**level)]
            if label == 0 or takes_all_for_normal:
                false.append(score)
            elif label not in itc and score > best[label]:
                best[label] = score
        hits += [score for score in best.values() if score > -np.inf]
        lesions += len(best)
    thresholds = sorted({*hits, *false})
    if drops_lowest:
        thresholds = thresholds[1:]
    fp_per_slide = [0.0]
    sensitivity = [0.0]
    for threshold in reversed(thresholds):
        fp_per_slide.append(sum(score >= threshold for score in false) / len(slides))
        sensitivity.append(sum(score >= threshold for score in hits) / lesions)
    at_rates = np.interp([0.25, 0.5, 1, 2, 4, 8], fp_per_slide, sensitivity)
    return fp_per_slide, sensitivity, float(at_rates.mean())


def part_of(file: Path, *bounds: float) -> list[shapely.Geometry]:
    """The tumor of a file within x0, y0, x1, y1 in level-0 pixels, moved to the origin."""
    regions = [region.geometry for region in read_asap(file).tumor]
    chosen = [region for region in regions if shapely.box(*bounds).covers(region)]
    x0, y0, _, _ = shapely.total_bounds(chosen)
    return [shapely.affinity.translate(g, 1000 - x0, 1000 - y0) for g in chosen]


@pytest.fixture(scope="module")
def real_maps(shared_data: Path) -> list[list[shapely.Geometry]]:
    folder = shared_data / "camelyon16"
    return [
        part_of(folder / "tumor_076.xml", 20_000, 19_000, 40_000, 25_000),
        part_of(folder / "tumor_085.xml", 56_000, 40_000, 85_000, 58_000),
        part_of(folder / "Tumor_076.json", 54_000, 46_000, 100_000, 71_000),
    ]


def real_slide(
    tumor: list[shapely.Geometry], seed: int
) -> tuple[PlainSlide, LesionPoints, LesionMap]:
    """A slide of these lesions, and random points on most of them and beside them."""
    rng = np.random.default_rng(seed)
    found = lesion_map(shapely.GeometryCollection(tumor), 0.243)
    if tumor:
        _, _, width, height = shapely.total_bounds(tumor) + 1000
    else:
        width, height = 20_000, 30_000
    columns, rows = math.ceil(width / 32), math.ceil(height / 32)
    centers_x, centers_y = np.arange(columns) * 32 + 16, np.arange(rows) * 32 + 16
    union = shapely.union_all(tumor)
    shapely.prepare(union)
    mask = shapely.contains_xy(union, centers_x[None, :], centers_y[:, None])
    # One in the corner, where a distance transform of nothing begins.
    points = [np.full((1, 2), 10.0), rng.random((40, 2)) * [columns * 32 - 1, rows * 32 - 1]]
    for lesion in tumor:
        x0, y0, x1, y1 = lesion.bounds
        many = rng.integers(0, 4)
        points.append(rng.random((many, 2)) * [x1 - x0, y1 - y0] + [x0, y0])
    x, y = np.concatenate(points).T
    # Few distinct values: ties within and between hits and false positives.
    scores = np.round(rng.random(len(x)), 1) - 0.2
    plain = PlainSlide(mask, scores.tolist(), x.tolist(), y.tolist())
    return plain, LesionPoints(scores, x, y), found


def both_ways(real_maps: list[list[shapely.Geometry]], seed: int) -> tuple[list[PlainSlide], Froc]:
    slides = [real_slide(tumor, seed) for tumor in [*real_maps, []]]
    return [plain for plain, _, _ in slides], froc(
        [match_points(points, truth) for _, points, truth in slides]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_on_real_lesions_it_is_what_the_rules_say(
    real_maps: list[list[shapely.Geometry]], seed: int
) -> None:
    plain, curve = both_ways(real_maps, seed)
    fp_per_slide, sensitivity, score = plain_froc(plain)
    assert curve.lesions == 9
    np.testing.assert_allclose(curve.fp_per_slide, fp_per_slide)
    np.testing.assert_allclose(curve.sensitivity, sensitivity)
    assert curve.score == pytest.approx(score)
    assert 0 < score < 1


def test_it_has_none_of_the_known_faults(real_maps: list[list[shapely.Geometry]]) -> None:
    plain, curve = both_ways(real_maps, 0)
    assert plain_froc(plain, takes_all_for_normal=True)[2] == 0
    rates, _, _ = plain_froc(plain, drops_lowest=True)
    assert len(rates) == len(curve.fp_per_slide) - 1
    # What it invents swallows the false positive in the corner of the slide without lesions.
    rates, _, _ = plain_froc(plain, invents_lesions=True)
    assert curve.fp_per_slide[-1] - rates[-1] == pytest.approx(1 / 4)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_real_lesions_are_those_of_the_whole_raster(
    real_maps: list[list[shapely.Geometry]], index: int
) -> None:
    """Windows around tumor, and another resolution, change no lesion."""
    plain, _, found = real_slide(real_maps[index], 0)
    distance = ndimage.distance_transform_edt(~plain.mask)
    near = distance < 75 / (0.243 * 2**5 * 2)
    labels = measure.label(ndimage.binary_fill_holes(near), connectivity=2)
    axes = [region.axis_major_length * 0.243 * 2**5 for region in measure.regionprops(labels)]
    np.testing.assert_allclose(np.sort(found.major_axis_um), np.sort(axes))
    rows, columns = np.mgrid[: labels.shape[0] : 3, : labels.shape[1] : 3]
    ours = found.labels_at(columns.ravel() * 32 + 16.0, rows.ravel() * 32 + 16.0)
    pairs = set(zip(labels[::3, ::3].ravel().tolist(), ours.tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({two for _, two in pairs})
    assert (0, 0) in pairs

    halved = shapely.affinity.scale(
        shapely.GeometryCollection(real_maps[index]), 0.5, 0.5, origin=(0, 0)
    )
    again = lesion_map(halved, 0.486)
    np.testing.assert_allclose(found.major_axis_um, again.major_axis_um)


# Invariants, on slides as the curve sees them.

#: Few distinct values, so that ties are common.
some_scores = st.lists(st.integers(0, 6).map(float), max_size=12)


@st.composite
def matches(draw: st.DrawFn) -> Matches:
    best = np.array(draw(st.lists(st.integers(-1, 6).map(float), max_size=5)), float)
    best[best < 0] = -np.inf
    false = np.array(draw(some_scores), float)
    return Matches(best, np.arange(len(false)), false)


projects = st.lists(matches(), min_size=1, max_size=4)


@given(projects)
def test_the_curve_ascends_from_nothing_to_all_points(slides: list[Matches]) -> None:
    curve = froc(slides)
    assert (np.diff(curve.thresholds) < 0).all()
    assert (np.diff(curve.fp_per_slide) >= 0).all()
    assert curve.fp_per_slide[0] == 0
    false = sum(m.false_positives.size for m in slides)
    assert curve.fp_per_slide[-1] == pytest.approx(false / len(slides))
    if curve.score is not None:
        assert (np.diff(curve.sensitivity) >= 0).all()
        hits = sum(m.hit_scores.size for m in slides)
        assert curve.sensitivity[-1] == pytest.approx(hits / curve.lesions)
        assert 0 <= curve.score <= 1


@given(projects, st.integers(-1, 7))
def test_another_false_positive_never_raises_sensitivity(slides: list[Matches], score: int) -> None:
    first = slides[0]
    worse = Matches(
        first.best_scores,
        np.arange(len(first.false_positives) + 1),
        np.append(first.false_positive_scores, float(score)),
    )
    before, after = froc(slides), froc([worse, *slides[1:]])
    if before.at_rates is not None and after.at_rates is not None:
        assert (np.array(after.at_rates) <= np.array(before.at_rates) + 1e-12).all()


@given(projects)
def test_only_the_order_of_scores_matters(slides: list[Matches]) -> None:
    def rescaled(m: Matches) -> Matches:
        with np.errstate(over="ignore"):
            hit, false = np.exp(m.best_scores) - 5, np.exp(m.false_positive_scores) - 5
        hit[np.isneginf(m.best_scores)] = -np.inf
        return Matches(hit, m.false_positives, false)

    before, after = froc(slides), froc([rescaled(m) for m in slides])
    np.testing.assert_array_equal(before.fp_per_slide, after.fp_per_slide)
    np.testing.assert_array_equal(before.sensitivity, after.sensitivity)
    assert before.score == after.score


@given(projects, st.randoms(use_true_random=False))
def test_the_order_of_slides_does_not_matter(slides: list[Matches], random: Random) -> None:
    shuffled = list(slides)
    random.shuffle(shuffled)
    assert froc(slides).score == froc(shuffled).score


@given(projects)
def test_doubling_every_slide_changes_nothing(slides: list[Matches]) -> None:
    once, twice = froc(slides), froc([*slides, *slides])
    np.testing.assert_allclose(once.fp_per_slide, twice.fp_per_slide)
    assert once.score == (None if twice.score is None else pytest.approx(twice.score))
