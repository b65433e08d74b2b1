from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box

from qprd.predictions import AREA_UM2, MAX_SCORE, MEAN_PROBABILITY, MEAN_SCORE, ScoreMap
from qprd.results.contours import GRID_PX, contour_measurements, inside_image
from qprd.results.contours import contours as find_contours

THRESHOLD = 2.0

#: Ties with the threshold, plateaus and glass must be common, or they are never drawn together.
cells = st.one_of(
    st.sampled_from([float("nan"), 0.0, 1.0, THRESHOLD, 3.0, 6.0]),
    st.floats(0, 6, width=32),
)
scores = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=cells
)
score_maps = st.builds(
    ScoreMap,
    scores=scores,
    x=st.sampled_from([0.0, 96.0, -32.5]),
    y=st.sampled_from([0.0, 1024.0]),
    cell_px=st.sampled_from([32.0, 64.0, 100.25]),
    mpp=st.sampled_from([0.25, 0.5, 1.0]),
)


def as_map(values: Any, cell_px: float = 64.0, mpp: float = 0.5) -> ScoreMap:
    return ScoreMap(np.asarray(values, dtype=np.float32), 0.0, 0.0, cell_px, mpp)


def contours(
    score_map: ScoreMap,
    threshold: float,
    *,
    min_area_um2: float = 2_000,
    min_hole_um2: float = 2_000,
    tolerance_um: float = 5,
    probability_of: Any = None,
) -> list[Polygon]:
    return find_contours(
        score_map,
        threshold,
        min_area_um2=min_area_um2,
        min_hole_um2=min_hole_um2,
        tolerance_um=tolerance_um,
        probability_of=probability_of,
    )


def exact(score_map: ScoreMap, threshold: float = THRESHOLD) -> list[Polygon]:
    """Every outline, neither dropped nor simplified."""
    return contours(score_map, threshold, min_area_um2=0, min_hole_um2=0, tolerance_um=0)


def center_grid(score_map: ScoreMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.indices(score_map.scores.shape).astype(np.float64)
    x = np.asarray(score_map.x + (columns + 0.5) * score_map.cell_px)
    y = np.asarray(score_map.y + (rows + 0.5) * score_map.cell_px)
    return x, y


def staircase(score_map: ScoreMap) -> shapely.Geometry:
    rows, columns = np.nonzero(score_map.scores >= THRESHOLD)
    x, y = score_map.x + columns * score_map.cell_px, score_map.y + rows * score_map.cell_px
    return shapely.union_all(shapely.box(x, y, x + score_map.cell_px, y + score_map.cell_px))


@given(score_maps)
def test_exactly_the_cells_at_or_above_the_threshold_have_their_center_inside(
    score_map: ScoreMap,
) -> None:
    inside = shapely.contains_xy(MultiPolygon(exact(score_map)), *center_grid(score_map))
    np.testing.assert_array_equal(inside, score_map.scores >= THRESHOLD)


def steep(values: NDArray[Any]) -> NDArray[np.float64]:
    """A calibration that separates the classes: most scores round to 0 or 1."""
    return 1 / (1 + np.exp(-40 * (np.asarray(values, np.float64) - 1.5)))


@given(score_maps)
def test_probabilities_put_the_outline_around_the_same_cells(score_map: ScoreMap) -> None:
    found = contours(
        score_map,
        THRESHOLD,
        min_area_um2=0,
        min_hole_um2=0,
        tolerance_um=0,
        probability_of=steep,
    )
    inside = shapely.contains_xy(MultiPolygon(found), *center_grid(score_map))
    np.testing.assert_array_equal(inside, score_map.scores >= THRESHOLD)


def test_outline_is_where_the_probability_reaches_that_of_the_threshold() -> None:
    bounds = {}
    for name, probability_of in (
        ("raw", None),
        ("squared", lambda s: s.astype(np.float64) ** 2 / 100),
    ):
        [outline] = contours(
            as_map([[1, 3, 3]], cell_px=64),
            2.0,
            min_area_um2=0,
            tolerance_um=0,
            probability_of=probability_of,
        )
        bounds[name] = outline.bounds[0]
    # Between the centers at 32 and 96: half way for 2 between 1 and 3, 3 / 8 for 4 from 1 to 9.
    assert bounds == {"raw": 64.0, "squared": 56.0}


@given(score_maps)
def test_outline_stays_within_one_cell_of_the_staircase_around_the_cells(
    score_map: ScoreMap,
) -> None:
    outline, cells_union = MultiPolygon(exact(score_map)), staircase(score_map)
    assert outline.is_empty == cells_union.is_empty
    if not outline.is_empty:
        far = shapely.hausdorff_distance(outline.boundary, cells_union.boundary, densify=0.1)
        assert far <= score_map.cell_px


@given(
    score_maps,
    st.floats(0, 200),
    st.sampled_from([0.0, 500.0, 5_000.0]),
    st.sampled_from([0.0, 500.0, 5_000.0]),
)
def test_contours_are_valid_apart_sorted_rounded_and_large_enough(
    score_map: ScoreMap, tolerance_um: float, min_area_um2: float, min_hole_um2: float
) -> None:
    found = contours(
        score_map,
        THRESHOLD,
        min_area_um2=min_area_um2,
        min_hole_um2=min_hole_um2,
        tolerance_um=tolerance_um,
    )
    assert all(type(polygon) is Polygon and polygon.is_valid for polygon in found)
    assert MultiPolygon(found).is_valid  # no two interiors overlap
    areas = [polygon.area * score_map.mpp**2 for polygon in found]
    assert areas == sorted(areas, reverse=True)
    assert all(area >= min_area_um2 for area in areas)
    coordinates = shapely.get_coordinates(found)
    np.testing.assert_allclose(coordinates, np.round(coordinates / GRID_PX) * GRID_PX, atol=1e-9)


@given(score_maps, st.floats(0.5, 200))
def test_simplified_outline_stays_within_the_tolerance(
    score_map: ScoreMap, tolerance_um: float
) -> None:
    original = MultiPolygon(exact(score_map)).boundary
    simple = MultiPolygon(
        contours(score_map, THRESHOLD, min_area_um2=0, min_hole_um2=0, tolerance_um=tolerance_um)
    ).boundary
    if not original.is_empty:
        far = shapely.hausdorff_distance(original, simple, densify=0.05)
        assert far <= tolerance_um / score_map.mpp + GRID_PX


def test_a_thin_region_is_simplified_without_collapsing() -> None:
    [original] = exact(as_map(np.full((1, 40), 6.0), cell_px=32, mpp=0.25))
    [simple] = contours(
        as_map(np.full((1, 40), 6.0), cell_px=32, mpp=0.25), THRESHOLD, min_area_um2=100
    )
    assert simple.area > original.area / 2
    assert shapely.hausdorff_distance(original.boundary, simple.boundary, densify=0.01) <= 20


def test_simplification_does_simplify() -> None:
    rows, columns = np.indices((60, 60))
    disk = as_map(6 - np.hypot(rows - 30, columns - 30) / 5)
    [original], [simple] = exact(disk), contours(disk, THRESHOLD)
    assert len(simple.exterior.coords) < len(original.exterior.coords) / 3
    assert simple.area == pytest.approx(original.area, rel=0.01)


@given(score_maps)
@example(
    ScoreMap(
        np.array([[2, 2, np.nan, 2, np.nan, 2], [2, 2, 2, 2, 2, 2]], np.float32),
        x=0.0,
        y=1024.0,
        cell_px=100.25,
        mpp=0.25,
    )
)
def test_shifting_the_map_shifts_the_contours(score_map: ScoreMap) -> None:
    moved = ScoreMap(
        score_map.scores, score_map.x + 4096, score_map.y - 512, score_map.cell_px, score_map.mpp
    )
    before, after = MultiPolygon(exact(score_map)), MultiPolygon(exact(moved))
    shifted = shapely.transform(before, lambda points: points + np.array([4096, -512]))
    # A coordinate halfway between two grid points rounds either way, and moves the whole outline.
    assert after.area == pytest.approx(before.area, abs=GRID_PX * (1 + before.length))
    assert shapely.symmetric_difference(after, shifted).area <= 0.1 * (1 + before.length)


@given(score_maps)
def test_larger_cells_give_the_same_contours_enlarged(score_map: ScoreMap) -> None:
    larger = ScoreMap(
        score_map.scores, score_map.x * 4, score_map.y * 4, score_map.cell_px * 4, score_map.mpp / 4
    )
    before, after = MultiPolygon(exact(score_map)), MultiPolygon(exact(larger))
    enlarged = shapely.transform(before, lambda points: points * 4)
    assert shapely.symmetric_difference(after, enlarged).area <= 0.1 * (1 + enlarged.length)


@given(score_maps)
def test_mirroring_the_map_mirrors_the_contours(score_map: ScoreMap) -> None:
    mirrored = ScoreMap(score_map.scores[:, ::-1].copy(), 0, 0, score_map.cell_px, score_map.mpp)
    straight = ScoreMap(score_map.scores, 0, 0, score_map.cell_px, score_map.mpp)
    width = score_map.scores.shape[1] * score_map.cell_px
    expected = shapely.transform(
        MultiPolygon(exact(straight)), lambda points: np.abs(np.array([width, 0]) - points)
    )
    difference = shapely.symmetric_difference(MultiPolygon(exact(mirrored)), expected)
    assert difference.area <= 0.1 * (1 + expected.length)


@given(score_maps)
@settings(max_examples=30)
def test_same_map_gives_the_same_contours_in_the_same_order(score_map: ScoreMap) -> None:
    first, second = (contours(score_map, THRESHOLD, min_area_um2=0) for _ in range(2))
    assert [polygon.wkb for polygon in first] == [polygon.wkb for polygon in second]


def test_map_without_tumor_has_no_contours() -> None:
    assert exact(as_map([[0, 1], [np.nan, 1.99]])) == []
    assert exact(as_map([[np.nan]])) == []


def test_outline_runs_along_the_edge_of_tissue_and_of_the_map() -> None:
    tumor_beside_glass = np.full((6, 6), 5.0)
    tumor_beside_glass[:, 4:] = np.nan
    [polygon] = exact(as_map(tumor_beside_glass, cell_px=100))
    assert polygon.bounds == (0, 0, 400, 600)
    assert polygon.area == pytest.approx(400 * 600 - 4 * 50 * 50 / 2)  # corners are cut


@pytest.mark.parametrize(("score", "expected"), [(2.0, 0.0), (4.0, 50.0), (6.0, 200 / 3)])
def test_outline_against_tissue_is_interpolated_linearly(score: float, expected: float) -> None:
    values = np.zeros((5, 5))
    values[2, 2] = score
    [polygon] = exact(as_map(values, cell_px=100))
    assert polygon.bounds[0] == pytest.approx(250 - expected, abs=0.5)


def test_a_ring_in_a_ring_gives_two_polygons_with_a_hole_each() -> None:
    distance = np.maximum(*np.abs(np.indices((21, 21)) - 10))
    rings = np.isin(distance, [2, 3, 7, 8]) * 6.0
    outer, inner = exact(as_map(rings))
    assert len(outer.interiors) == len(inner.interiors) == 1
    assert Polygon(outer.interiors[0]).contains(inner)
    assert MultiPolygon([outer, inner]).is_valid


def test_a_filled_hole_swallows_what_lies_in_it() -> None:
    distance = np.maximum(*np.abs(np.indices((21, 21)) - 10))
    rings = np.isin(distance, [0, 1, 2, 7, 8]) * 6.0
    assert len(contours(as_map(rings), THRESHOLD, min_area_um2=0, min_hole_um2=0)) == 2
    hole_um2 = (13 * 64 * 0.5) ** 2
    [polygon] = contours(as_map(rings), THRESHOLD, min_area_um2=0, min_hole_um2=hole_um2)
    assert not polygon.interiors


def test_only_small_holes_are_filled() -> None:
    values = np.full((30, 30), 6.0)
    values[5, 5] = 0.0
    values[15:25, 15:25] = 0.0
    cell_um2 = (64 * 0.5) ** 2
    [polygon] = contours(as_map(values), THRESHOLD, min_hole_um2=4 * cell_um2)
    [hole] = polygon.interiors
    assert Polygon(hole).contains(box(16 * 64, 16 * 64, 24 * 64, 24 * 64))


def test_small_regions_are_dropped_by_area_in_square_micrometers() -> None:
    values = np.zeros((20, 20))
    values[2, 2] = 6.0
    values[8:14, 8:14] = 6.0
    assert len(contours(as_map(values, mpp=0.5), THRESHOLD)) == 1
    # The same cells at twice the size on the glass: the lone cell is large enough now.
    assert len(contours(as_map(values, mpp=1.0), THRESHOLD)) == 2


@pytest.mark.parametrize(("others", "count"), [(0.0, 2), (1.9, 1)])
def test_cells_that_touch_at_a_corner_join_if_the_mean_around_it_is_tumor(
    others: float, count: int
) -> None:
    assert len(exact(as_map([[3.0, others], [others, 3.0]]))) == count


def test_cells_that_touch_at_a_corner_do_not_join_across_glass() -> None:
    assert len(exact(as_map([[6.0, np.nan], [np.nan, 6.0]]))) == 2


def test_smooth_regions_on_a_large_map_match_the_mask() -> None:
    rng = np.random.default_rng(3)
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal((300, 400)), 8)
    values = 1.5 + noise / noise.std()
    values[:, :40] = np.nan
    score_map = as_map(values)
    found = contours(score_map, THRESHOLD)
    mask = (values >= THRESHOLD).ravel()
    x, y = center_grid(score_map)
    inside = shapely.contains_xy(MultiPolygon(found), x.ravel(), y.ravel())
    assert (inside & mask).sum() / (inside | mask).sum() > 0.98
    assert len(found) > 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": 2.0, "min_area_um2": -1.0},
        {"threshold": 2.0, "min_hole_um2": -1.0},
        {"threshold": 2.0, "tolerance_um": -1.0},
    ],
)
def test_meaningless_options_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        contours(as_map([[1.0]]), **arguments)


def test_infinite_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        contours(as_map([[np.inf]]), THRESHOLD)


@given(score_maps)
def test_measurements_agree_with_a_loop_over_the_cells(score_map: ScoreMap) -> None:
    x, y = center_grid(score_map)
    for polygon in exact(score_map):
        inside = [
            float(score_map.scores[cell])
            for cell in np.ndindex(score_map.scores.shape)
            if polygon.contains(shapely.Point(x[cell], y[cell]))
        ]
        found = contour_measurements(score_map, polygon)
        assert found[MEAN_SCORE] == pytest.approx(np.mean(inside))
        assert found[MEAN_SCORE] >= THRESHOLD
        assert found[MAX_SCORE] == max(inside)
        assert found[AREA_UM2] == polygon.area * score_map.mpp**2
        assert all(type(value) is float for value in found.values())


def test_measurements_leave_out_cells_outside_the_tissue_and_in_holes() -> None:
    values = [[1.0, np.nan, 3.0], [4.0, 100.0, 6.0]]
    hole = box(64, 64, 128, 128).exterior.coords
    polygon = Polygon(box(0, 0, 192, 128).exterior.coords, [hole])
    found = contour_measurements(as_map(values), polygon)
    assert found[MEAN_SCORE] == pytest.approx((1 + 3 + 4 + 6) / 4)
    assert found[MAX_SCORE] == 6
    assert MEAN_PROBABILITY not in found
    found = contour_measurements(as_map(values), polygon, lambda s: s.astype(np.float64) ** 2 / 100)
    assert found[MEAN_PROBABILITY] == pytest.approx((1 + 9 + 16 + 36) / 4 / 100)


def test_a_polygon_between_cell_centers_is_measured_on_the_cells_it_overlaps() -> None:
    found = contour_measurements(as_map([[1.0, 3.0], [np.nan, 6.0]]), box(60, 5, 68, 10))
    assert found[MEAN_SCORE] == 2
    assert found[MAX_SCORE] == 3
    assert found[AREA_UM2] == 8 * 5 * 0.25


@pytest.mark.parametrize("polygon", [box(5, 70, 10, 75), box(1000, 1000, 1010, 1010)])
def test_a_polygon_outside_the_tissue_has_an_area_but_no_score(polygon: Polygon) -> None:
    found = contour_measurements(as_map([[1.0, 3.0], [np.nan, 6.0]]), polygon)
    assert np.isnan(found[MEAN_SCORE])
    assert np.isnan(found[MAX_SCORE])
    assert found[AREA_UM2] > 0


def test_a_threshold_just_above_the_highest_score_finds_nothing() -> None:
    scores = np.full((4, 4), 2.5, np.float32)
    score_map = ScoreMap(scores, 0.0, 0.0, 100.0, 1.0)
    assert contours(score_map, 2.5, min_area_um2=0)
    assert contours(score_map, float(np.nextafter(2.5, 3)), min_area_um2=0) == []


@given(st.lists(st.tuples(*[st.integers(-50, 150)] * 2), min_size=3, max_size=8))
def test_contours_end_at_the_image(points: list[tuple[int, int]]) -> None:
    polygon = Polygon(points).buffer(0)
    if not isinstance(polygon, Polygon) or polygon.is_empty:
        return
    clipped = inside_image([polygon], 100, 80)
    image = box(0, 0, 100, 80)
    assert all(part.within(image.buffer(1e-9)) and part.area > 0 for part in clipped)
    assert sum(part.area for part in clipped) == pytest.approx(polygon.intersection(image).area)
    large = inside_image([polygon], 100, 80, min_area_px2=50)
    assert large == [part for part in clipped if part.area >= 50 or part is polygon]
