from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPoint, box, mapping

from qprd.errors import QprdError
from qprd.predictions import FAULT, MEAN_SCORE, is_own_contour, object_id
from qprd.qupath.geojson import intact_features, parse_color, read_annotations, read_objects
from qprd.qupath.predictions_geojson import predictions_from_geojson
from qprd.qupath.project import PathClass

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}


def feature(geometry: Any = SQUARE, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def one(value: Any) -> Any:
    (found,) = read_objects(json.dumps(value))
    return found


def test_reads_qupaths_own_export(shared_data: Path) -> None:
    found = read_annotations(shared_data / "qupath/colon/annotations/colon_1.tif.geojson")
    assert [(a.class_name, a.name, a.locked) for a in found] == [
        ("Tumor", "tumor region", True),
        ("Normal", "normal region", True),
        ("Ignore*", "excluded box", False),
    ]
    assert found[0].id == "8b8d5457-5470-45da-9f7d-1d6002baa1c2"
    assert found[0].geometry.bounds == (0, 0, 3584, 8448)
    # QuPath's area, by the shoelace formula over the exported vertices.
    vertices = json.loads(
        (shared_data / "qupath/colon/annotations/colon_1.tif.geojson").read_text()
    )["features"][0]["geometry"]["coordinates"][0]
    pairs = itertools.pairwise(vertices)
    area = abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2
    assert found[0].geometry.area == pytest.approx(area)


def test_what_qprd_made_is_known_whatever_its_class_is_now() -> None:
    made = feature(classification={"name": "Tumor"}, measurements={MEAN_SCORE: 1.0})
    drawn = feature(classification={"names": ["Tumor", "qprd"]}, measurements={"x": 1.0})
    # Changing its outline costs a contour its measurements in QuPath, and not its id or its name.
    edited = feature(classification={"name": "Normal"}) | {"id": object_id("b", "1", "review", 7)}
    earlier = feature(classification={"name": "Normal"}, name="qprd review 7")
    found = read_annotations(json.dumps([made, drawn, edited, earlier]))
    assert [annotation.predicted for annotation in found] == [True, False, True, True]
    for item in read_objects(json.dumps([made, drawn])):
        assert item.path_class is not None
        assert not is_own_contour(item.path_class.name, item.measurements)


@pytest.mark.parametrize("kind", ["MultiPolygon", "MultiLineString", "MultiPoint"])
def test_empty_parts_of_a_geometry_are_passed_over(kind: str) -> None:
    part = {
        "MultiPolygon": [[[0, 0], [1, 0], [1, 1], [0, 0]]],
        "MultiLineString": [[0, 0], [1, 1]],
        "MultiPoint": [0, 0],
    }[kind]
    found = one(feature({"type": kind, "coordinates": [[], part]}))
    assert found.geometry == shapely.geometry.shape({"type": kind, "coordinates": [part]})
    assert read_objects(json.dumps(feature({"type": kind, "coordinates": [[], []]}))) == []


def test_an_empty_hole_is_passed_over_and_a_hole_in_nothing_too() -> None:
    ring, hole = list(shapely.box(0, 0, 9, 9).exterior.coords), [[1, 1], [2, 1], [2, 2], [1, 1]]
    for kind, wrapped in (
        ("Polygon", lambda rings: rings),
        ("MultiPolygon", lambda rings: [rings]),
    ):
        found = one(feature({"type": kind, "coordinates": wrapped([ring, [], hole])}))
        # What GEOS has to say of an empty hole is a crash.
        assert shapely.covers(shapely.box(0, 0, 10, 10), found.geometry)
        assert found.geometry.area == 81 - 0.5
        without_outline = feature({"type": kind, "coordinates": wrapped([[], hole])})
        assert read_objects(json.dumps(without_outline)) == []


def test_half_a_surrogate_pair_is_replaced() -> None:
    found = one(feature(name="a\ud83d", classification="b\ud83d", measurements={"c\ud83d": 1}))
    assert (found.name, found.path_class.name, dict(found.measurements)) == ("a?", "b?", {"c?": 1})


def test_colors_are_read(shared_data: Path) -> None:
    found = read_objects(shared_data / "qupath/colon/annotations/colon_2.tif.geojson")
    assert [o.path_class for o in found] == [
        PathClass("Tumor", (200, 0, 0)),
        PathClass("Normal", (0, 200, 0)),
    ]


@pytest.mark.parametrize("wrap", ["collection", "list", "feature", "nested lists"])
def test_every_way_to_hold_features_is_read(wrap: str) -> None:
    one_feature = feature(name="a")
    value: Any = {
        "collection": {"type": "FeatureCollection", "features": [one_feature]},
        "list": [one_feature],
        "feature": one_feature,
        "nested lists": [[one_feature]],
    }[wrap]
    assert [a.name for a in read_annotations(json.dumps(value))] == ["a"]


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, PathClass("Tumor", (200, 0, 0))),
        ({"name": "Tumor", "color": [200, 0, 0, 128]}, PathClass("Tumor", (200, 0, 0))),
        ({"name": "Tumor", "colorRGB": -3670016}, PathClass("Tumor", (200, 0, 0))),
        ({"names": ["Tumor", "sub"], "color": [1, 2, 3]}, PathClass("Tumor: sub", (1, 2, 3))),
        ({"name": "Tumor:sub"}, PathClass("Tumor: sub")),
        (
            {"name": "b", "colorRGB": -1, "parentClass": {"name": "a", "colorRGB": 0}},
            PathClass("a: b", (255, 255, 255)),
        ),
        ("Ignore*", PathClass("Ignore*")),
        ({"name": "x", "color": [300, "a", None]}, PathClass("x")),
        ({"name": "x", "color": "red"}, PathClass("x")),
        ({}, None),
        (None, None),
        ("", None),
        ({"names": []}, None),
        (7, None),
    ],
)
def test_classifications_of_all_versions(classification: Any, expected: PathClass | None) -> None:
    assert one(feature(classification=classification)).path_class == expected


@pytest.mark.parametrize(
    ("properties", "feature_id", "expected"),
    [
        ({"objectType": "annotation"}, None, "annotation"),
        ({}, None, "annotation"),
        ({"objectType": "something new"}, None, "annotation"),
        ({"objectType": "detection"}, None, "detection"),
        ({"object_type": "cell"}, None, "cell"),
        ({"type": "tile"}, None, "tile"),
        ({"objectType": "tmaCore"}, None, "tma core"),
        ({}, "PathDetectionObject", "detection"),
        ({}, "PathAnnotationObject", "annotation"),
        ({"objectType": ["x"]}, None, "annotation"),
    ],
)
def test_object_types_of_all_versions(
    properties: dict[str, Any], feature_id: str | None, expected: str
) -> None:
    found = one({**feature(**properties), "id": feature_id})
    assert found.object_type == expected
    assert len(read_annotations(json.dumps(feature(**properties)))) <= 1


def test_only_annotations_are_annotations() -> None:
    kinds = ["annotation", "detection", "cell", "tile", "tmaCore", "root"]
    text = json.dumps([feature(objectType=kind, name=kind) for kind in kinds])
    assert [a.name for a in read_annotations(text)] == ["annotation"]


@pytest.mark.parametrize(
    "measurements",
    [
        {"a": 1.5, "b": "NaN", "c": "-Infinity", "d": None},
        [
            {"name": "a", "value": 1.5},
            {"name": "b", "value": float("nan")},
            {"name": "c", "value": float("-inf")},
            {"name": 3},
            7,
        ],
    ],
)
def test_measurements_of_all_versions(measurements: Any) -> None:
    found = one(feature(measurements=measurements)).measurements
    assert found["a"] == 1.5
    assert found["b"] != found["b"]  # NaN
    assert found["c"] == float("-inf")
    assert set(found) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("geometry", "wkt"),
    [
        (
            {
                "type": "Polygon",
                "coordinates": [
                    [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]],
                    [[1, 1], [2, 1], [2, 2], [1, 1]],
                ],
            },
            "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (1 1, 2 1, 2 2, 1 1))",
        ),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [
                    [[[0, 0], [1, 0], [1, 1], [0, 0]]],
                    [[[5, 5], [6, 5], [6, 6], [5, 5]]],
                ],
            },
            "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))",
        ),
        ({"type": "LineString", "coordinates": [[0, 0], [1.006, 2]]}, "LINESTRING (0 0, 1.01 2)"),
        ({"type": "Point", "coordinates": [1, 2, 3]}, "POINT (1 2)"),
        ({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, "MULTIPOINT ((1 2), (3 4))"),
        (
            {"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]]]},
            "MULTILINESTRING ((0 0, 1 1))",
        ),
        (
            {
                "type": "GeometryCollection",
                "geometries": [{"type": "Point", "coordinates": [1, 2]}, {}],
            },
            "GEOMETRYCOLLECTION (POINT (1 2))",
        ),
        ({**SQUARE, "isEllipse": True}, "POLYGON ((0 0, 10 0, 10 10, 0 10, 0 0))"),
    ],
)
def test_geometries_are_read_as_drawn(geometry: Any, wkt: str) -> None:
    assert one(feature(geometry)).geometry.equals_exact(shapely.from_wkt(wkt), 0)


def test_an_invalid_polygon_is_handed_on_as_drawn() -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
    assert not one(feature(bow_tie)).geometry.is_valid


@pytest.mark.parametrize("geometry", [None, {}, {"type": "Polygon", "coordinates": []}])
def test_objects_without_a_place_are_left_out(geometry: Any) -> None:
    assert read_objects(json.dumps(feature(geometry))) == []


def test_ids_are_qupaths_or_stand_ins() -> None:
    known = "8b8d5457-5470-45da-9f7d-1d6002baa1c2"
    features = [{**feature(), "id": known}, feature(), {**feature(), "id": "../x"}]
    assert [o.id for o in read_objects(json.dumps(features))] == [known, "feature 2", "feature 3"]


def test_nested_objects_follow_their_parents() -> None:
    tree = feature(name="a", childObjects=[feature(name="b", childObjects=[feature(name="c")])])
    assert [a.name for a in read_annotations(json.dumps([tree, feature(name="d")]))] == [*"abcd"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        '"Feature"',
        "{}",
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": {}}',
        '{"type": "FeatureCollection", "features": [1]}',
        '{"type": ["FeatureCollection"]}',
    ],
)
def test_malformed_files_are_refused(text: str) -> None:
    with pytest.raises(QprdError):
        read_annotations(text)


@pytest.mark.parametrize(
    "malformed",
    [
        feature({"type": "Polygon"}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
        feature({"type": "Polygon", "coordinates": [0, 0]}),
        feature({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}),
        feature({"type": "Polygon", "coordinates": [[[0], [1], [2], [0]]]}),
        feature({"type": "Point", "coordinates": [True, False]}),
        feature({"type": "Point", "coordinates": [float("nan"), 0]}),
        feature({"type": "Point", "coordinates": [10**400, 0]}),
        feature({"type": "Circle", "coordinates": [0, 0]}),
        feature({"type": ["Point"], "coordinates": [0, 0]}),
        feature([1]),
        feature({"type": "GeometryCollection", "geometries": 3}),
        feature(measurements={"a": "many"}),
        feature(measurements={"a": 10**400}),
        feature({**mapping(box(0, 0, 10, 10)), "plane": {"z": "deep"}}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}),
        feature({"type": "Polygon", "coordinates": [[[3, 3]] * 5]}),
        feature(**{FAULT: "QuPath cannot export it"}),
    ],
)
def test_a_malformed_annotation_is_named_and_the_others_are_read(
    malformed: dict[str, Any],
) -> None:
    whole = feature(name="whole")
    malformed["properties"]["name"] = "bad"
    found = read_annotations(json.dumps([whole, malformed, whole]))
    assert [one.name for one in found] == ["whole", "bad", "whole"]
    assert [one.fault is None for one in found] == [True, False, True]
    text = json.dumps({"type": "FeatureCollection", "features": [whole, malformed]})
    (unusable,) = predictions_from_geojson(text).unusable
    assert unusable == f"feature 2: {found[1].fault}"


@pytest.mark.parametrize(
    ("coordinates", "points"),
    [
        ([[[0, 0], [5, 5], [0, 0]]], [(0, 0), (5, 5), (0, 0)]),
        ([[[0, 0], [float("nan"), 1], [5, 5.5]]], [(0, 0), (5, 5.5)]),
        ([[[0, 0], [10**400, 1], [True, 1]]], [(0, 0)]),
        ("nowhere", []),
    ],
)
def test_a_malformed_outline_is_known_by_its_points(
    coordinates: object, points: list[tuple[float, float]]
) -> None:
    (found,) = read_objects(json.dumps(feature({"type": "Polygon", "coordinates": coordinates})))
    assert found.fault
    assert found.geometry.equals(MultiPoint(points))


def deep(depth: int, opening: str, core: str, closing: str) -> str:
    return opening * depth + core + closing * depth


@pytest.mark.parametrize("depth", [100, 800, 100_000])
@pytest.mark.parametrize(
    ("opening", "core", "closing"),
    [
        ("[", json.dumps(feature()), "]"),
        ('{"type":"FeatureCollection","features":[', "", "]}"),
        (
            '{"type":"Feature","geometry":null,"properties":{"childObjects":[',
            "",
            "]}}",
        ),
    ],
    ids=["lists", "collections", "children"],
)
def test_deep_nesting_is_refused_not_a_crash(
    depth: int, opening: str, core: str, closing: str
) -> None:
    with pytest.raises(QprdError, match="deeply"):
        read_objects(deep(depth, opening, core, closing))


def test_a_class_nested_too_deeply_is_a_fault() -> None:
    text = deep(200, '{"parentClass":', "null", "}")
    holder = json.dumps(feature(classification="HERE")).replace('"HERE"', text)
    assert "deeply" in one(json.loads(holder)).fault


def test_geometries_nested_too_deeply_are_a_fault() -> None:
    geometry: dict[str, Any] = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(100):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    (found,) = read_objects(json.dumps(feature(geometry)))
    assert "deeply" in str(found.fault)


def test_argb_is_unpacked() -> None:
    assert parse_color(-3670016) == (200, 0, 0)
    assert parse_color(-16726016) == (0, 200, 0)


KEYS = [
    "type",
    "features",
    "geometry",
    "coordinates",
    "geometries",
    "properties",
    "id",
    "classification",
    "name",
    "names",
    "color",
    "parentClass",
    "measurements",
    "childObjects",
    "objectType",
    "isLocked",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner
            | st.sampled_from(["Feature", "FeatureCollection", "Polygon", "Point", "annotation"]),
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(json_values)
def test_any_json_gives_objects_or_an_error_of_the_user(value: object) -> None:
    for root in (value, feature(value)):
        with contextlib.suppress(QprdError):
            read_objects(json.dumps(root))


@given(st.dictionaries(st.sampled_from(["classification", "measurements", "name"]), json_values))
def test_any_properties_give_an_object_or_an_error_of_the_user(properties: dict[str, Any]) -> None:
    with contextlib.suppress(QprdError):
        assert len(read_objects(json.dumps(feature(**properties)))) == 1


@pytest.mark.parametrize(
    ("plane", "expected"),
    [(None, (0, 0)), ({"c": -1, "z": 2, "t": 1}, (2, 1)), ({"c": -1}, (0, 0))],
)
def test_an_annotation_knows_its_plane(plane: object, expected: tuple[int, int]) -> None:
    geometry = {**mapping(box(0, 0, 10, 10)), **({} if plane is None else {"plane": plane})}
    [found] = read_annotations(json.dumps({"type": "Feature", "geometry": geometry}))
    assert found.plane == expected


def test_features_that_qupath_can_read_are_told_from_the_others() -> None:
    open_ring = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10]]]}
    flat = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [0, 0]]]}
    child = feature(classification={"name": "Normal"}, objectType="annotation")
    parent = feature(open_ring, classification={"name": "Tumor"}, childObjects=[child])
    features, faults = intact_features([parent, feature(flat)], None)
    assert faults == ["feature 3: its outline has fewer than three corners"]
    classes = [item["properties"]["classification"] for item in features]  # type: ignore[index]
    assert [(named["name"], len(named["color"])) for named in classes] == [
        ("Tumor", 3),
        ("Normal", 3),
    ]
    assert features[0]["geometry"]["coordinates"][0][-1] == (0, 0)  # type: ignore[index]
    assert "childObjects" not in features[0]["properties"]  # type: ignore[operator]
