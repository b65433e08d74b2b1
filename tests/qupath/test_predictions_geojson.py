from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from qprd.predictions import (
    MAX_SCORE,
    MEAN_SCORE,
    OLD_TILE_NAME,
    PROBABILITY,
    REVIEW_CLASS,
    REVIEW_RANK,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
)
from qprd.qupath.geojson import read_objects
from qprd.qupath.predictions_geojson import (
    predictions_from_geojson,
    predictions_to_geojson,
    predictions_to_text,
)
from tests.helpers.one_prediction import ID, one_contour, one_tile

ids = st.uuids().map(str)
pixels = st.floats(-1e5, 1e6)
measured = st.floats(allow_nan=False, allow_infinity=False)
tiles = st.builds(
    PredictedTile,
    id=ids,
    x=pixels,
    y=pixels,
    width=st.floats(0.1, 5000),
    height=st.floats(0.1, 5000),
    measurements=st.fixed_dictionaries({SCORE: measured, PROBABILITY: measured}),
)


@st.composite
def polygons(draw: st.DrawFn) -> Polygon:
    """A star around a center, in any case valid, with or without a hole."""
    x, y = draw(pixels), draw(pixels)
    radii = draw(st.lists(st.floats(10, 500), min_size=3, max_size=12))
    corners = [
        (
            x + radius * math.cos(2 * math.pi * i / len(radii)),
            y + radius * math.sin(2 * math.pi * i / len(radii)),
        )
        for i, radius in enumerate(radii)
    ]
    holes = [[(x - 1, y - 1), (x + 1, y - 1), (x, y + 1)]] if draw(st.booleans()) else []
    return Polygon(corners, holes)


contours = st.builds(
    PredictedContour,
    id=ids,
    polygon=polygons(),
    name=st.none() | st.text(min_size=1, max_size=10),
    measurements=st.dictionaries(st.text(max_size=8), measured, max_size=3).map(
        lambda others: {**others, MEAN_SCORE: 1.5}
    ),
)
regions = contours.map(
    lambda contour: ReviewRegion(
        contour.id, contour.polygon, contour.name, {**contour.measurements, REVIEW_RANK: 2.0}
    )
)
predictions = st.builds(
    Predictions,
    tiles=st.lists(tiles, max_size=3).map(tuple),
    contours=st.lists(contours, max_size=3).map(tuple),
    contour_class=st.sampled_from(["Tumor: qprd", "Tumor: sub: qprd", "qprd"]),
    contour_color=st.tuples(*[st.integers(0, 255)] * 3),
    metadata=st.dictionaries(st.text(max_size=5).map("qprd: {}".format), st.text(max_size=8)),
    review=st.lists(regions, max_size=2).map(tuple),
)


@settings(max_examples=40)
@given(predictions)
def test_what_is_written_is_what_is_read(meant: Predictions) -> None:
    text = predictions_to_text(meant)
    found = predictions_from_geojson(text)
    assert (found.contour_class, found.contour_color) == (meant.contour_class, meant.contour_color)
    assert found.metadata == meant.metadata
    for tile, expected in zip(found.tiles, meant.tiles, strict=True):
        assert (tile.id, tile.measurements) == (expected.id, expected.measurements)
        assert tile.x == pytest.approx(expected.x, abs=0.01)
        assert tile.y == pytest.approx(expected.y, abs=0.01)
        assert tile.width == pytest.approx(expected.width, abs=0.01)
        assert tile.height == pytest.approx(expected.height, abs=0.01)
    for contour, wanted in zip(found.annotations, meant.annotations, strict=True):
        assert type(contour) is type(wanted)
        assert (contour.id, contour.name) == (wanted.id, wanted.name)
        assert contour.measurements == wanted.measurements
        assert contour.polygon.is_valid
        assert len(contour.polygon.interiors) == len(wanted.polygon.interiors)
        assert contour.polygon.hausdorff_distance(wanted.polygon) <= 0.01
    assert predictions_to_text(found) == text


@settings(max_examples=40)
@given(predictions)
def test_what_is_written_is_what_qupath_accepts(meant: Predictions) -> None:
    root = json.loads(json.dumps(predictions_to_geojson(meant)), parse_constant=pytest.fail)
    assert root["type"] == "FeatureCollection"
    for feature in root["features"]:
        assert feature["type"] == "Feature"
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] in ("tile", "annotation")
        # QuPath paints the names of tiles over the tissue.
        assert properties["objectType"] == "annotation" or "name" not in properties
        if properties["objectType"] == "annotation":
            classification = properties["classification"]
            assert len(classification["color"]) == 3
            names = classification.get("names", [classification.get("name")])
            is_review = REVIEW_RANK in properties["measurements"]
            assert ": ".join(names) == (REVIEW_CLASS if is_review else meant.contour_class)
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert all(c == round(c, 2) for xy in ring for c in xy)


def test_the_members_of_strangers_are_not_ours() -> None:
    ours = predictions_to_geojson(
        replace(one_tile(), contours=one_contour(id=str(uuid.UUID(int=8))).contours)
    )
    geometry = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    strangers = [
        {"objectType": "tile", "name": OLD_TILE_NAME, "measurements": {"other": 1}},
        {"objectType": "tile", "name": "tile", "measurements": {SCORE: 1}},
        {"objectType": "cell", "name": OLD_TILE_NAME, "measurements": {SCORE: 1}},
        {"objectType": "annotation", "name": OLD_TILE_NAME, "measurements": {SCORE: 1}},
        {"objectType": "annotation", "classification": {"name": "Tumor", "color": [1, 2, 3]}},
        {"objectType": "annotation", "classification": {"name": "qprd2", "color": [1, 2, 3]}},
        # Drawn by a person who chose our class.
        {
            "objectType": "annotation",
            "classification": {"names": ["Tumor", "qprd"], "color": [1, 2, 3]},
            "measurements": {MAX_SCORE: 1},
        },
        {"objectType": "detection", "classification": {"name": "qprd", "color": [1, 2, 3]}},
    ]
    mixed = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": geometry, "properties": p} for p in strangers]
        + list(ours["features"]),  # type: ignore[call-overload]
    }
    assert len(read_objects(json.dumps(mixed))) == len(strangers) + 2
    found = predictions_from_geojson(mixed)
    assert [t.id for t in found.tiles] == [ID]
    assert [c.id for c in found.contours] == [str(uuid.UUID(int=8))]


def test_a_contour_that_is_no_polygon_any_more_is_named_and_the_rest_is_read() -> None:
    broken, whole = one_contour(), one_contour(id=str(uuid.UUID(int=8)))
    root: Any = predictions_to_geojson(replace(broken, contours=broken.contours + whole.contours))
    geometry = root["features"][0]["geometry"]
    for changed, reason in (
        ({"type": "MultiPolygon", "coordinates": [geometry["coordinates"]] * 2}, "MultiPolygon"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]}, "fewer than three"),
    ):
        root["features"][0]["geometry"] = changed
        found = predictions_from_geojson(root)
        assert [c.id for c in found.contours] == [whole.contours[0].id]
        (unusable,) = found.unusable
        assert ID in unusable
        assert reason in unusable
