from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from qprd.sampling.region_index import RegionIndex


def blob(x: float, y: float, radius: float, hole: float, seed: int) -> Polygon:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.column_stack([np.cos(angle), np.sin(angle)])
    outer = around * (radius * rng.uniform(0.5, 1.0, (24, 1))) + (x, y)
    inner = around * (radius * 0.45 * hole) + (x, y)
    return Polygon(outer, [inner] if hole > 0.05 else [])


blobs = st.builds(
    blob,
    st.floats(-200, 3000),
    st.floats(-200, 3000),
    st.floats(1, 900),
    st.floats(0, 1),
    st.integers(0, 99),
)
random_regions = st.lists(blobs, min_size=1, max_size=6).map(
    lambda parts: MultiPolygon(
        [p for p in shapely.get_parts(shapely.union_all(parts)) if p.geom_type == "Polygon"]
    )
)


def detailed(x: float, y: float, radius: float, vertices: int, seed: int) -> MultiPolygon:
    """A ragged outline with a ragged hole."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    around = np.column_stack([np.cos(angle), np.sin(angle)])
    rings = [
        around * (share * radius * rng.uniform(0.9, 1, (vertices, 1))) + (x, y)
        for share in (1.0, 0.5)
    ]
    return MultiPolygon([Polygon(rings[0], [rings[1]])])


detailed_regions = st.builds(
    detailed,
    st.floats(0, 2000),
    st.floats(0, 2000),
    st.floats(100, 1500),
    st.integers(600, 6000),
    st.integers(0, 99),
)


@given(random_regions | detailed_regions, st.floats(8, 300), st.integers(0, 99))
@settings(max_examples=60)
def test_coverage_is_the_area_of_the_intersection(
    region: MultiPolygon, size: float, seed: int
) -> None:
    index = RegionIndex(region, size)
    assert index.area_px2 == pytest.approx(region.area, rel=1e-6)
    x, y = np.random.default_rng(seed).uniform(-300, 3200, (2, 50))
    expected = [
        region.intersection(box(a, b, a + size, b + size)).area for a, b in np.column_stack([x, y])
    ]
    np.testing.assert_allclose(index.coverage(x, y, size), np.array(expected) / size**2, atol=1e-6)


@given(random_regions, st.integers(0, 99))
@settings(max_examples=30)
def test_points_said_to_be_inside_are_inside(region: MultiPolygon, seed: int) -> None:
    index = RegionIndex(region, 64)
    points, inside = index.points(np.random.default_rng(seed).random((200, 3)))
    # Points outside a piece may lie in another one, so the other direction does not hold.
    assert all(region.buffer(1e-6).contains(Point(p)) for p in points[inside])
    assert inside.any()


def test_points_are_uniform_over_regions_of_very_different_size() -> None:
    small, large = box(90_000, 10, 90_010, 20), box(0, 0, 30, 30)
    index = RegionIndex(MultiPolygon([small, large]), 256)
    points, inside = index.points(np.random.default_rng(0).random((20_000, 3)))
    share = (points[inside, 0] > 50_000).mean()
    assert inside.all()
    assert share == pytest.approx(0.1, abs=0.01)


def test_raster_agrees_with_the_polygons_at_cell_centers() -> None:
    region = MultiPolygon([blob(100, 100, 90, 1.0, 3)])
    raster = RegionIndex(region, 32).rasterize(20.5, 30.0, 150.0, 40)
    centers = (np.arange(40) + 0.5) * 150 / 40
    x, y = np.meshgrid(20.5 + centers, 30.0 + centers)
    np.testing.assert_array_equal(raster, shapely.contains_xy(region, x, y))
    assert 0 < raster.mean() < 1


def test_an_empty_region_covers_nothing() -> None:
    index = RegionIndex(MultiPolygon(), 32)
    assert index.area_px2 == 0
    assert index.coverage(np.array([0.0]), np.array([0.0]), 10.0).tolist() == [0.0]
    assert not index.points(np.zeros((4, 3)))[1].any()
    assert not index.rasterize(0, 0, 10, 4).any()
