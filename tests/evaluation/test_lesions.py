from random import Random

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.evaluation.lesions import ITC_UM, RASTER_UM, lesion_map

MPP = 0.5
PIXEL_PX = RASTER_UM / MPP


def box_um(x: float, y: float, width: float, height: float | None = None) -> shapely.Polygon:
    """A rectangle in micrometers, as level-0 pixels at `MPP`."""
    height = width if height is None else height
    return shapely.box(*(side / MPP for side in (x, y, x + width, y + height)))


def disk_um(x: float, y: float, radius: float) -> shapely.Polygon:
    return shapely.Point(x / MPP, y / MPP).buffer(radius / MPP, quad_segs=32)


def test_without_tumor_there_is_no_lesion() -> None:
    found = lesion_map(shapely.MultiPolygon(), MPP)
    assert len(found.is_itc) == 0
    assert not found.labels.any()
    assert (found.labels_at([0, 1e6], [0, -1e6]) == 0).all()


def test_points_and_lines_are_no_lesion() -> None:
    drawn = shapely.GeometryCollection(
        [shapely.Point(5000, 5000), shapely.LineString([(0, 0), (9000, 9000)])]
    )
    assert not lesion_map(drawn, MPP).labels.any()


@pytest.mark.parametrize(("gap_um", "count"), [(55, 1), (95, 2)])
def test_tumor_within_75_um_is_one_lesion(gap_um: float, count: int) -> None:
    # One raster pixel of 7.8 um may be lost or won on each side.
    drawn = shapely.MultiPolygon([box_um(1000, 1000, 400), box_um(1400 + gap_um, 1000, 400)])
    assert len(lesion_map(drawn, MPP).lesions) == count


def test_lesions_that_touch_at_a_corner_are_one() -> None:
    first = box_um(1000, 1000, 400)
    # Grown by 4 pixels each, the two meet at one corner.
    step = 8 * RASTER_UM * np.sqrt(0.5)
    assert len(lesion_map(first.union(box_um(1400 + step, 1400 + step, 400)), MPP).lesions) == 1


def test_growing_reaches_75_um_halved() -> None:
    """A pixel is of the lesion if its center is nearer than 4.8 pixels to that of a drawn one."""
    drawn = shapely.box(*(PIXEL_PX * np.array([100, 100, 200, 200])))
    found = lesion_map(drawn, MPP)
    columns = np.arange(90, 110)
    inside = found.labels_at(PIXEL_PX * (columns + 0.5), PIXEL_PX * np.full(20, 150.5)) > 0
    np.testing.assert_array_equal(columns[inside], np.arange(96, 110))
    corner = [(100 - i, 100 - j) for i in range(6) for j in range(6)]
    for column, row in corner:
        is_near = np.hypot(100 - column, 100 - row) < 75 / (0.243 * 2**5 * 2)
        found_there = found.labels_at([PIXEL_PX * (column + 0.5)], [PIXEL_PX * (row + 0.5)])
        assert bool(found_there[0]) == is_near, (column, row)


def test_holes_are_filled() -> None:
    ring = disk_um(2000, 2000, 900).difference(disk_um(2000, 2000, 600))
    inner = disk_um(2000, 2000, 200)
    for drawn in (ring, shapely.MultiPolygon([ring, inner])):
        found = lesion_map(drawn, MPP)
        assert len(found.is_itc) == 1
        assert found.labels_at([2000 / MPP], [2000 / MPP]).tolist() == [1]


@pytest.mark.parametrize(("diameter_um", "is_itc"), [(180, True), (220, False)])
def test_itc_is_below_200_um_before_growing(diameter_um: float, is_itc: bool) -> None:
    """275 um of the grown lesion are 200 um of what was drawn."""
    found = lesion_map(disk_um(1000, 1000, diameter_um / 2), MPP)
    assert found.is_itc.tolist() == [is_itc]
    assert found.major_axis_um[0] == pytest.approx(diameter_um + 75, abs=2 * RASTER_UM)
    assert len(found.lesions) == (0 if is_itc else 1)


def test_major_axis_is_that_of_the_ellipse() -> None:
    found = lesion_map(box_um(1000, 1000, 1000, 300), MPP)
    # 4 standard deviations of a uniform distribution over the grown length.
    assert found.major_axis_um[0] == pytest.approx(4 * 1075 / np.sqrt(12), rel=0.02)
    assert found.major_axis_um[0] > ITC_UM


def test_a_polygon_smaller_than_a_pixel_is_isolated_tumor_cells() -> None:
    """It must not be lost: a detection on it is no false positive."""
    center = PIXEL_PX * 50.1
    found = lesion_map(shapely.Point(center, center).buffer(1.0), MPP)
    assert found.is_itc.tolist() == [True]
    assert found.labels_at([center], [center]).tolist() == [1]


def test_tumor_larger_than_a_slide_is_an_error_and_no_exhausted_memory() -> None:
    with pytest.raises(QprdError, match="larger than any slide"):
        lesion_map(box_um(0, 0, 1e6), MPP)


def test_invalid_outlines_are_repaired() -> None:
    bow_tie = shapely.Polygon([(1000, 1000), (3000, 3000), (3000, 1000), (1000, 3000)])
    found = lesion_map(bow_tie, MPP)
    assert len(found.is_itc) == 1
    assert found.labels_at([1200, 2800, 2000], [2000, 2000, 1200]).tolist() == [1, 1, 0]


def test_coordinates_that_are_none_are_refused() -> None:
    with np.errstate(invalid="ignore"):
        drawn = shapely.Polygon([(0, 0), (np.nan, 5), (5, 5)])
    with pytest.raises(ValueError, match="finite"):
        lesion_map(drawn, MPP)


@st.composite
def drawn_tumor(draw: st.DrawFn) -> shapely.MultiPolygon:
    """Up to six ellipses in an area of 4 x 4 mm."""
    number = draw(st.integers(1, 6))
    place = st.floats(200, 4000)
    radius = st.floats(5, 500)
    parts = [
        shapely.affinity.scale(disk_um(draw(place), draw(place), 1.0), draw(radius), draw(radius))
        for _ in range(number)
    ]
    return shapely.union_all(parts)


@settings(max_examples=25)
@given(drawn_tumor(), st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_the_same_tissue_at_another_resolution_has_the_same_lesions(
    tumor: list[shapely.Geometry], factor: float
) -> None:
    """Powers of two, so that not even rounding differs."""
    found = lesion_map(tumor, MPP)
    scaled = shapely.transform(tumor, lambda points: points * factor)
    other = lesion_map(scaled, MPP / factor)
    np.testing.assert_array_equal(found.major_axis_um, other.major_axis_um)
    np.testing.assert_array_equal(found.labels, other.labels)


@settings(max_examples=25)
@given(drawn_tumor())
def test_all_that_is_drawn_is_in_a_lesion(tumor: list[shapely.Geometry]) -> None:
    found = lesion_map(tumor, MPP)
    for polygon in shapely.get_parts(tumor):
        point = polygon.representative_point()
        assert found.labels_at([point.x], [point.y])[0] > 0


@settings(max_examples=25)
@given(drawn_tumor(), st.randoms(use_true_random=False))
def test_the_order_of_drawing_does_not_matter(
    tumor: list[shapely.Geometry], random: Random
) -> None:
    parts = list(shapely.get_parts(tumor))
    random.shuffle(parts)
    found, other = lesion_map(tumor, MPP), lesion_map(shapely.GeometryCollection(parts), MPP)
    np.testing.assert_array_equal(found.major_axis_um, other.major_axis_um)
    np.testing.assert_array_equal(found.labels, other.labels)
