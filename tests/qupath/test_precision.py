from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qprd.qupath.precision import area_on_grid, on_grid, same_outline, storing_tolerance

place = st.integers(-10_000_000, 10_000_000).map(lambda number: number / 700)
triangles = st.lists(st.tuples(place, place), min_size=3, max_size=3).map(shapely.Polygon)
areas = st.lists(triangles, min_size=1, max_size=4).map(shapely.union_all)


@settings(max_examples=50)
@given(areas)
@example(shapely.Polygon([(-3714 / 700, -0.32), (95588 / 700, -7066800 / 700), (-3714 / 700, 0)]))
def test_areas_on_the_grid_are_valid_near_and_stay_as_they_are(area: shapely.Geometry) -> None:
    snapped = area_on_grid(area)
    if snapped is None:
        assert shapely.set_precision(area, 0.01).area == 0
        return
    assert snapped.is_valid
    assert snapped.geom_type in ("Polygon", "MultiPolygon")
    moved = shapely.symmetric_difference(snapped, area).area
    assert moved <= 0.02 * area.length
    xy = shapely.get_coordinates(snapped)
    np.testing.assert_array_equal(xy, np.round(xy, 2))
    again = area_on_grid(snapped)
    assert again is not None
    assert again.normalize() == snapped.normalize()


def test_what_is_smaller_than_the_grid_is_nothing() -> None:
    assert area_on_grid(shapely.box(0, 0, 0.001, 5)) is None
    lines = shapely.GeometryCollection([shapely.LineString([(0, 0), (5, 5)]), shapely.Point(1, 1)])
    assert area_on_grid(lines) is None
    beside = shapely.GeometryCollection(
        [shapely.box(0, 0, 5, 5), shapely.LineString([(9, 9), (5, 5)])]
    )
    assert shapely.equals(area_on_grid(beside), shapely.box(0, 0, 5, 5))


def test_no_zero_has_a_sign() -> None:
    assert not np.signbit(on_grid(np.array([-0.001]))).any()


@pytest.mark.parametrize("offset", [0.0, 250_000.0])
def test_the_same_outline_may_begin_elsewhere_and_lack_a_vertex(offset: float) -> None:
    square = shapely.box(0, 0, 100, 100)
    hole = shapely.box(20, 20, 40, 40)
    meant = shapely.transform(
        shapely.MultiPolygon([square.difference(hole), shapely.box(200, 0, 300, 50)]),
        lambda xy: xy + offset,
    )
    nudge = 0.9 * storing_tolerance(np.array([offset]))
    assert same_outline(meant, shapely.affinity.translate(meant, nudge, 0))
    assert same_outline(meant, shapely.reverse(meant))
    assert same_outline(meant, shapely.segmentize(meant, 30))
    assert not same_outline(meant, shapely.affinity.translate(meant, 3 * nudge + 0.02, 0))
    assert not same_outline(meant, meant.geoms[0])
    filled = shapely.MultiPolygon([shapely.Polygon(part.exterior) for part in meant.geoms])
    assert not same_outline(meant, filled)
