from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from qprd.qupath.outlines import MAX_CROSSINGS, crossings, repaired

SQUARE = shapely.box(0, 0, 10, 10)
BOW_TIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def star(points: int) -> shapely.Polygon:
    """Each of its sides crosses nearly all others."""
    turn = (points // 2) * 2 * math.pi / points
    return shapely.Polygon(
        [(100 * math.cos(i * turn), 100 * math.sin(i * turn)) for i in range(points)]
    )


def test_crossings_are_counted() -> None:
    assert crossings(SQUARE, limit=10) == 0
    assert crossings(BOW_TIE, limit=10) == 1
    assert crossings(star(5), limit=10) == 5
    assert crossings(star(7), limit=100) == 14
    assert crossings(star(101), limit=100) > 100
    crossed_hole = shapely.Polygon(SQUARE.exterior, [shapely.box(5, 5, 15, 6).exterior])
    assert crossings(crossed_hole, limit=10) == 2


def test_a_valid_outline_stays_and_one_that_crosses_itself_is_filled_by_the_even_odd_rule() -> None:
    assert repaired(SQUARE) is SQUARE
    tie, pentagram = repaired(BOW_TIE), repaired(star(5))
    assert tie is not None
    assert pentagram is not None
    assert tie.area == 50
    assert not pentagram.contains(shapely.Point(0, 0))
    assert pentagram.contains(shapely.Point(90, 0))


def test_points_that_are_there_twice_are_no_crossings() -> None:
    twice = np.repeat(np.array(star(5).exterior.coords), 2, axis=0)
    assert crossings(shapely.Polygon(twice), limit=10) == 5


@pytest.mark.parametrize("kind", ["crossed here and there", "scribbled at one place"])
def test_an_outline_of_a_million_vertices_is_refused_in_bounded_memory(kind: str) -> None:
    count = 1_000_000
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    outline = np.column_stack([np.cos(angles), np.sin(angles)]) * 10_000
    if kind == "crossed here and there":
        # A saw with two teeth at one place every so often.
        swapped = np.arange(100, count - 100, 900)
        outline[swapped], outline[swapped + 1] = outline[swapped + 1], outline[swapped].copy()
    else:
        outline[:2_000] = np.random.default_rng(0).uniform(-100, 100, (2_000, 2))
    tracemalloc.start()
    try:
        assert repaired(shapely.Polygon(outline)) is None
        assert tracemalloc.get_traced_memory()[1] < 2**30
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("points", [500, 5_000])
def test_a_scribble_is_refused_at_once_instead_of_taking_hours(points: int) -> None:
    scribble = shapely.Polygon(np.random.default_rng(0).random((points, 2)))
    assert repaired(scribble) is None
    around = np.array(SQUARE.exterior.coords)
    assert repaired(shapely.Polygon(np.concatenate([around] * 200))) is None


def test_a_long_outline_with_one_crossing_is_repaired() -> None:
    angles = np.linspace(0, 2 * np.pi, 20_000)
    circle = np.column_stack([np.cos(angles), np.sin(angles)]) * 100
    circle[:2] = circle[1::-1]
    found = repaired(shapely.Polygon(circle))
    assert found is not None
    assert found.is_valid
    assert found.area == pytest.approx(np.pi * 100**2, rel=1e-3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_whatever_is_drawn_becomes_valid(points: list[tuple[int, int]]) -> None:
    found = repaired(shapely.Polygon(points))
    assert found is not None
    assert found.is_valid
    assert crossings(shapely.Polygon(points), limit=MAX_CROSSINGS) <= MAX_CROSSINGS
