from __future__ import annotations

import json

from qprd.export.geojson import geojson_text
from qprd.qupath.predictions_geojson import predictions_from_geojson
from qprd.qupath.storable import storable
from tests.helpers.small_project import predictions


def test_contours_go_alone_or_with_the_tiles() -> None:
    ours = storable(predictions(tiles=3))
    alone = predictions_from_geojson(geojson_text(ours, tiles=False))
    assert alone.annotations == ours.annotations
    assert alone.tiles == ()
    assert predictions_from_geojson(geojson_text(ours, tiles=True)).tiles == ours.tiles


def test_contours_are_annotations_of_qprds_class() -> None:
    features = json.loads(geojson_text(predictions(), tiles=False))["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"annotation"}
    assert [feature["properties"]["classification"]["names"] for feature in features] == [
        ["Tumor", "qprd"],
        ["Review", "qprd"],
    ]
