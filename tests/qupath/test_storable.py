"""What QuPath cannot store, and what it makes of the rest."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from shapely.geometry import MultiPolygon, Point, Polygon, box

from qprd.errors import QprdError
from qprd.predictions import (
    MAX_SCORE,
    MEAN_SCORE,
    PROBABILITY,
    REVIEW_RANK,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
)
from qprd.qupath.storable import storable

ID = str(uuid.UUID(int=7))


def tile(**changes: Any) -> Predictions:
    plain = PredictedTile(ID, 0.0, 0.0, 64.0, 64.0, {SCORE: 1.0})
    return Predictions(tiles=(replace(plain, **changes),), contours=())


def contour(polygon: Any = box(0, 0, 10, 10), **changes: Any) -> Predictions:  # noqa: B008
    plain = PredictedContour(ID, polygon, "region", {MEAN_SCORE: 1.0})
    return Predictions(tiles=(), contours=(replace(plain, **changes),))


@pytest.mark.parametrize(
    "bad",
    [
        tile(measurements={SCORE: float("nan")}),
        tile(measurements={SCORE: float("inf")}),
        tile(measurements={PROBABILITY: 0.5}),
        tile(width=0.0),
        tile(height=0.001),
        tile(x=float("nan")),
        tile(y=float("inf")),
        tile(id="tile 1"),
        contour(id="../../x"),
        contour(Polygon()),
        contour(Polygon([(0, 0), (0.001, 0), (0.001, 0.001)])),
        contour(Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])),
        contour(Polygon([(0, 0), (float("inf"), 0), (9, 9)])),
        contour(MultiPolygon([box(0, 0, 1, 1), box(5, 5, 6, 6)])),
        contour(Point(1, 1)),
        contour(measurements={MEAN_SCORE: 1.0, MAX_SCORE: float("nan")}),
        contour(measurements={MAX_SCORE: 1.0}),
        Predictions((), (), metadata={"split": "train"}),
        Predictions((), (), metadata={"qprd-review by Anna": "done"}),
        replace(contour(), contour_class="Tumor"),
        contour(measurements={MEAN_SCORE: 1.0, REVIEW_RANK: 1.0}),
        Predictions((), (), review=(ReviewRegion(ID, box(0, 0, 9, 9), "", {MEAN_SCORE: 1.0}),)),
    ],
)
def test_what_qupath_cannot_store_is_refused(bad: Predictions) -> None:
    with pytest.raises(QprdError):
        storable(bad)


def test_what_is_on_the_grid_stays_and_the_rest_is_rounded_to_it() -> None:
    exact = tile(x=1.25)
    assert storable(exact).tiles[0] is exact.tiles[0]
    rounded = storable(tile(x=1.004, width=63.996, height=9)).tiles[0]
    assert (rounded.x, rounded.width, rounded.height) == (1.0, 64.0, 9.0)
    corners = box(0.001, 0, 10, 10.009)
    assert storable(contour(corners)).contours[0].polygon.equals(box(0, 0, 10, 10.01))
