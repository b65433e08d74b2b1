"""What QuPath cannot store, and what it makes of the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shapely.geometry import MultiPolygon, Point, Polygon, box

from qprd.errors import QprdError
from qprd.predictions import (
    MAX_SCORE,
    MEAN_SCORE,
    PROBABILITY,
    REVIEW_RANK,
    SCORE,
    Predictions,
    ReviewRegion,
)
from qprd.qupath.storable import storable
from tests.helpers.one_prediction import ID, one_contour, one_tile


@pytest.mark.parametrize(
    "bad",
    [
        one_tile(measurements={SCORE: float("nan")}),
        one_tile(measurements={SCORE: float("inf")}),
        one_tile(measurements={PROBABILITY: 0.5}),
        one_tile(width=0.0),
        one_tile(height=0.001),
        one_tile(x=float("nan")),
        one_tile(y=float("inf")),
        one_tile(id="tile 1"),
        one_contour(id="../../x"),
        one_contour(Polygon()),
        one_contour(Polygon([(0, 0), (0.001, 0), (0.001, 0.001)])),
        one_contour(Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])),
        one_contour(Polygon([(0, 0), (float("inf"), 0), (9, 9)])),
        one_contour(MultiPolygon([box(0, 0, 1, 1), box(5, 5, 6, 6)])),
        one_contour(Point(1, 1)),
        one_contour(measurements={MEAN_SCORE: 1.0, MAX_SCORE: float("nan")}),
        one_contour(measurements={MAX_SCORE: 1.0}),
        Predictions((), (), metadata={"split": "train"}),
        Predictions((), (), metadata={"qprd-review by Anna": "done"}),
        replace(one_contour(), contour_class="Tumor"),
        one_contour(measurements={MEAN_SCORE: 1.0, REVIEW_RANK: 1.0}),
        Predictions((), (), review=(ReviewRegion(ID, box(0, 0, 9, 9), "", {MEAN_SCORE: 1.0}),)),
    ],
)
def test_what_qupath_cannot_store_is_refused(bad: Predictions) -> None:
    with pytest.raises(QprdError):
        storable(bad)


def test_what_is_on_the_grid_stays_and_the_rest_is_rounded_to_it() -> None:
    exact = one_tile(x=1.25)
    assert storable(exact).tiles[0] is exact.tiles[0]
    rounded = storable(one_tile(x=1.004, width=63.996, height=9)).tiles[0]
    assert (rounded.x, rounded.width, rounded.height) == (1.0, 64.0, 9.0)
    corners = box(0.001, 0, 10, 10.009)
    assert storable(one_contour(corners)).contours[0].polygon.equals(box(0, 0, 10, 10.01))
