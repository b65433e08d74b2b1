from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from qprd.evaluation.overlap import Coverage, Overlap, polygon_overlap


def test_iou_and_dice_of_known_areas() -> None:
    half = polygon_overlap(box(0, 0, 2, 2), box(1, 0, 3, 2))
    assert half == Overlap(predicted=4, truth=4, both=2)
    assert half.iou == pytest.approx(2 / 6)
    assert half.dice == pytest.approx(4 / 8)
    assert half.sensitivity == pytest.approx(2 / 4)
    same = polygon_overlap(box(0, 0, 2, 2), box(0, 0, 2, 2))
    assert (same.iou, same.dice) == (1, 1)
    apart = polygon_overlap(box(0, 0, 1, 1), box(5, 5, 6, 6))
    assert (apart.iou, apart.dice) == (0, 0)
    missed = polygon_overlap(Polygon(), box(5, 5, 6, 6))
    assert (missed.iou, missed.dice) == (0, 0)
    nothing = polygon_overlap(Polygon(), MultiPolygon())
    assert (nothing.iou, nothing.dice, nothing.sensitivity) == (None, None, None)


def test_what_is_drawn_and_not_scored_is_measured_and_added() -> None:
    drawn, scored, tissue = box(0, 0, 1000, 1000), box(0, 0, 600, 1000), box(0, 0, 900, 2000)
    found = Coverage.of(drawn, scored, tissue, 2.0)
    areas = (found.drawn, found.not_scored, found.not_tissue)
    assert areas == pytest.approx((4.0, 1.6, 0.4))
    assert found.share == pytest.approx(0.4)
    assert (found + Coverage(4.0)).share == pytest.approx(0.2)
    assert Coverage().share is None


def test_only_what_lies_in_the_window_counts() -> None:
    a, b = box(0, 0, 2, 2), box(1, 0, 3, 2)
    assert polygon_overlap(a, b, within=box(1, 0, 2, 2)).iou == 1
    assert polygon_overlap(a, b, within=box(8, 8, 9, 9)).iou is None


def test_a_bow_tie_is_repaired() -> None:
    bow_tie = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    assert polygon_overlap(bow_tie, box(0, 0, 2, 2)).iou == pytest.approx(0.5)


boxes = st.tuples(*[st.integers(1, 9)] * 4).map(lambda v: box(v[0], v[1], v[0] + v[2], v[1] + v[3]))


@given(boxes, boxes)
def test_dice_and_iou_say_the_same(a: Polygon, b: Polygon) -> None:
    overlap = polygon_overlap(a, b)
    assert overlap.iou is not None
    assert overlap.dice == pytest.approx(2 * overlap.iou / (1 + overlap.iou))
    assert 0 <= overlap.iou <= 1


@given(boxes, boxes)
def test_slides_add_up_as_if_they_were_one(a: Polygon, b: Polygon) -> None:
    far = [shapely.affinity.translate(shape, 100) for shape in (b, a)]
    together = polygon_overlap(a | far[0], b | far[1])
    added = polygon_overlap(a, b) + polygon_overlap(*far)
    assert added.both == pytest.approx(together.both)
    assert added.predicted == pytest.approx(together.predicted)
    assert added.scaled(0.25).truth == pytest.approx(together.truth / 4)
