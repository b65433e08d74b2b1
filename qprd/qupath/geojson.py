"""GeoJSON as QuPath 0.4 to 0.7 writes and reads it, to and from plain data.

The rules are those of QuPath's ``QuPathTypeAdapters``, ``ROITypeAdapters`` and ``GsonTools``:
objects are features whose ``properties`` hold ``objectType``, ``name``, ``classification``,
``isLocked`` and ``measurements``; coordinates have two decimals; a classification without a
``color`` makes QuPath refuse the whole file; other members of a collection are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import geojson
import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.jsonfile import parse_json, read_text, well_formed
from qprd.predictions import FAULT, OWN, class_parts, is_object_id, was_predicted
from qprd.qupath.geojson_geometry import (
    GEOMETRIES,
    MAX_NESTED,
    parse_geometry,
    parse_plane,
    positions,
)
from qprd.qupath.precision import DECIMALS
from qprd.qupath.project import DEFAULT_COLOR, SCORED_PLANE, Annotation, PathClass

MAX_BYTES = 1024 * 2**20

_Parsed = TypeVar("_Parsed")

_WHAT = "a GeoJSON file from QuPath"
#: Object types by their name in GeoJSON, those of QuPath 0.2 included. Others are annotations.
_OBJECT_TYPES = {
    "tile": "tile",
    "PathTileObject": "tile",
    "cell": "cell",
    "PathCellObject": "cell",
    "detection": "detection",
    "PathDetectionObject": "detection",
    "tmaCore": "tma core",
    "tma_core": "tma core",
    "TMACoreObject": "tma core",
    "root": "root",
    "PathRootObject": "root",
}
#: Members that hold the objects below one.
_CHILDREN = ("childObjects", "children")


@dataclass(frozen=True)
class QuPathObject:
    """An object of a GeoJSON file.

    Attributes:
        id: QuPath's UUID, or ``feature N`` where the file has none.
        object_type: ``annotation``, ``tile``, ``cell``, ``detection``, ``tma core`` or ``root``.
        geometry: Level-0 pixels, rounded to 0.01; possibly invalid, a point or a line.
        measurements: By name; they may be NaN or infinite.
        plane: z and t of the plane it is drawn on.
        fault: Why it cannot be used; the geometry is then what is known of its points. None if
            the feature is well formed.
    """

    id: str
    object_type: str
    geometry: BaseGeometry
    path_class: PathClass | None = None
    name: str | None = None
    locked: bool = False
    measurements: Mapping[str, float] = field(default_factory=dict)
    plane: tuple[int, int] = SCORED_PLANE
    fault: str | None = None


def read_annotations(source: Path | str) -> list[Annotation]:
    """The annotations of a GeoJSON file (`Path`) or text (`str`); other objects are passed over.

    A malformed feature is an annotation with a fault.

    Raises:
        QprdError: it cannot be read, or is no GeoJSON.
    """
    return annotations_of(read_objects(source))


def annotations_of(objects: Iterable[QuPathObject]) -> list[Annotation]:
    """Those of the objects that are annotations."""
    return [
        Annotation(
            id=found.id,
            geometry=found.geometry,
            class_name=found.path_class.name if found.path_class else None,
            name=found.name,
            locked=found.locked,
            predicted=was_predicted(found.id, found.name, found.measurements),
            plane=found.plane,
            fault=found.fault,
        )
        for found in objects
        if found.object_type == "annotation"
    ]


def read_objects(source: Path | str) -> list[QuPathObject]:
    """All objects of a GeoJSON file (`Path`) or text (`str`) that have a geometry.

    A feature collection, a list of features, or one feature; children are listed after their
    parents. A malformed feature is an object with a fault.

    Raises:
        QprdError: it cannot be read, or is no GeoJSON.
    """
    return objects_of(*read_root(source))


def read_root(source: Path | str) -> tuple[object, str | None]:
    """Parse a GeoJSON file (`Path`) or text (`str`): the JSON, and what to call it in errors.

    Raises:
        QprdError: it cannot be read or is no JSON.
    """
    if isinstance(source, Path):
        text, where = read_text(source, what=_WHAT, limit_bytes=MAX_BYTES), str(source)
        return parse_json(text, what=_WHAT, where=where), where
    return parse_json(source, what=_WHAT), None


def own_member_of(root: object) -> Mapping[str, object]:
    """The ``qprd`` member of parsed GeoJSON, empty if there is none."""
    member = root.get(OWN) if isinstance(root, Mapping) else None
    return member if isinstance(member, dict) else {}


def annotation_feature(
    object_id: str | None,
    geometry: BaseGeometry,
    path_class: PathClass,
    name: str | None,
    measurements: Mapping[str, float] | None = None,
) -> geojson.Feature:
    """An annotation as QuPath reads it, its coordinates rounded to 0.01 px."""
    coordinates = shapely.geometry.mapping(geometry)["coordinates"]
    properties: dict[str, object] = {
        "objectType": "annotation",
        "classification": class_to_geojson(path_class),
    }
    if name:
        properties["name"] = name
    if measurements is not None:
        properties["measurements"] = {key: float(value) for key, value in measurements.items()}
    return geojson.Feature(
        id=object_id,
        geometry=getattr(geojson, geometry.geom_type)(coordinates, precision=DECIMALS),
        properties=properties,
    )


def class_to_geojson(path_class: PathClass) -> dict[str, object]:
    """The ``classification`` of a feature; without a color QuPath refuses the file."""
    names = list(class_parts(path_class.name))
    named = {"names": names} if len(names) > 1 else {"name": names[0]}
    return {**named, "color": list(path_class.color or DEFAULT_COLOR)}


def objects_of(root: object, where: str | None) -> list[QuPathObject]:
    """As `read_objects`, of parsed JSON."""
    features = enumerate(_features(root, where, depth=0), start=1)
    found = (_parse_object(feature, f"feature {number}") for number, feature in features)
    return [one for one in found if one is not None]


def intact_features(root: object, where: str | None) -> tuple[list[dict[str, object]], list[str]]:
    """The features that QuPath can read, none inside another, and the faults of the others."""
    features: list[dict[str, object]] = []
    faults: list[str] = []
    for number, feature in enumerate(_features(root, where, depth=0), start=1):
        found = _parse_object(feature, f"feature {number}")
        if found is None:
            continue
        if found.fault is not None:
            faults.append(f"{found.id}: {found.fault}")
            continue
        drawn, properties = feature.get("geometry"), feature.get("properties")
        assert isinstance(drawn, Mapping)
        kept = {} if not isinstance(properties, dict) else properties
        kept = {k: v for k, v in kept.items() if k not in (*_CHILDREN, "classification")}
        if found.path_class is not None:
            kept["classification"] = class_to_geojson(found.path_class)
        geometry = {**drawn, **shapely.geometry.mapping(found.geometry)}
        features.append({**feature, "geometry": geometry, "properties": kept})
    return features, faults


def refuse_faults(objects: Iterable[QuPathObject], where: str | None) -> None:
    """Make sure that all objects of a file are well formed."""
    for found in objects:
        if found.fault is not None:
            raise _not_geojson(f"{found.id} is malformed ({found.fault})", where)


def _not_geojson(why: str, where: str | None) -> QprdError:
    return QprdError(
        f"This is not {_WHAT}: {why}.", where=where, fix="Export it from QuPath again."
    )


def _features(root: object, where: str | None, depth: int) -> Iterator[Mapping[str, object]]:
    """Features in the file's order, each followed by the children that QuPath nests in it."""
    if depth > MAX_NESTED:
        raise _not_geojson("it is nested too deeply", where)
    if isinstance(root, list):
        for item in root:
            yield from _features(item, where, depth + 1)
    elif isinstance(root, Mapping) and root.get("type") == "FeatureCollection":
        features = root.get("features")
        if not isinstance(features, list):
            raise _not_geojson("its features are no list", where)
        yield from _features(features, where, depth + 1)
    elif isinstance(root, Mapping) and root.get("type") == "Feature":
        yield root
        properties = root.get("properties")
        if isinstance(properties, dict):
            children = next((properties[key] for key in _CHILDREN if key in properties), None)
            if isinstance(children, list):
                yield from _features(children, where, depth + 1)
    elif isinstance(root, Mapping) and root.get("type") in GEOMETRIES:
        # QuPath takes a bare geometry for an annotation.
        yield {"type": "Feature", "geometry": root}
    else:
        raise _not_geojson("it has something other than features", where)


def _parse_object(feature: Mapping[str, object], fallback_id: str) -> QuPathObject | None:
    """One object, None if it has no geometry; what is malformed of it is its fault."""
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    faults: list[str] = []

    def parsed(
        parse: Callable[[object], _Parsed], value: object, otherwise: Callable[[], _Parsed]
    ) -> _Parsed:
        try:
            return parse(value)
        except (ValueError, OverflowError, ShapelyError) as error:
            faults.append(str(error).rstrip("."))
            return otherwise()

    drawn = feature.get("geometry")
    if isinstance(fault := properties.get(FAULT), str):
        faults.append(well_formed(fault))
    geometry = parsed(parse_geometry, drawn, lambda: shapely.MultiPoint(list(positions(drawn))))
    path_class = parsed(_parse_class, properties.get("classification"), lambda: None)
    measurements = parsed(_parse_measurements, properties.get("measurements"), dict[str, float])
    plane = parsed(parse_plane, drawn, lambda: SCORED_PLANE)
    if geometry is None or (geometry.is_empty and not faults):
        return None
    name, raw_id = properties.get("name"), feature.get("id")
    given_type = raw_id if raw_id in ("PathAnnotationObject", *_OBJECT_TYPES) else None
    for key in ("type", "object_type", "objectType"):
        given_type = properties.get(key, given_type)
    return QuPathObject(
        id=raw_id if isinstance(raw_id, str) and is_object_id(raw_id) else fallback_id,
        object_type=_OBJECT_TYPES.get(str(given_type), "annotation"),
        geometry=geometry,
        path_class=path_class,
        name=well_formed(name) if isinstance(name, str) else None,
        locked=properties.get("isLocked") is True,
        measurements=measurements,
        plane=plane,
        fault=faults[0] if faults else None,
    )


def _parse_class(value: object, depth: int = 0) -> PathClass | None:
    """A classification: a name, or an object with ``name``, ``names`` or ``parentClass``."""
    if depth > MAX_NESTED:
        raise ValueError("its classification is nested too deeply")
    if isinstance(value, str):
        return _class_of([value], None)
    if not isinstance(value, dict):
        return None
    color = parse_color(value.get("color")) or parse_color(value.get("colorRGB"))
    names = value.get("names")
    if isinstance(names, list):
        return _class_of([name for name in names if isinstance(name, str)], color)
    # Before QuPath 0.4 a derived class held its parent.
    parent = _parse_class(value.get("parentClass"), depth + 1)
    name = value.get("name")
    return _class_of(
        ([parent.name] if parent else []) + ([name] if isinstance(name, str) else []), color
    )


def _class_of(names: list[str], color: tuple[int, int, int] | None) -> PathClass | None:
    parts = [part for name in names for part in class_parts(name)]
    full = well_formed(": ".join(part for part in parts if part))
    return PathClass(full, color) if full else None


def parse_color(value: object) -> tuple[int, int, int] | None:
    """RGB from a list of 3 or 4 bytes, or from QuPath's signed 32-bit ARGB number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value >> 16) & 255, (value >> 8) & 255, value & 255
    if isinstance(value, list) and len(value) in (3, 4):
        red, green, blue = (
            int(part) if isinstance(part, int | float) and 0 <= part <= 255 else -1
            for part in value[:3]
        )
        return (red, green, blue) if min(red, green, blue) >= 0 else None
    return None


def _parse_measurements(value: object) -> dict[str, float]:
    """An object of numbers; before QuPath 0.4 a list of ``{"name": ..., "value": ...}``."""
    if isinstance(value, list):
        pairs = [(item.get("name"), item.get("value")) for item in value if isinstance(item, dict)]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        return {}
    measurements: dict[str, float] = {}
    for name, number in pairs:
        if isinstance(name, str) and isinstance(number, int | float | str):
            try:
                # Strings are QuPath's "NaN", "Infinity" and "-Infinity".
                measurements[well_formed(name)] = float(number)
            except ValueError as error:
                raise ValueError(f"its measurement {name!r} is not a number") from error
    return measurements
