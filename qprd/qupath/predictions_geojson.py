"""Predictions to and from the GeoJSON that QuPath reads.

Tiles are features of ``objectType`` tile, contours and regions to review annotations; entry
metadata and the contours' class travel in a member of the collection that QuPath passes over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import geojson

from qprd.predictions import (
    OWN,
    REVIEW_CLASS,
    REVIEW_COLOR,
    TILE_COLOR,
    PredictedTile,
    Predictions,
    is_own_contour,
    is_own_tile,
)
from qprd.qupath.geojson import (
    annotation_feature,
    objects_of,
    own_member_of,
    parse_color,
    read_root,
    refuse_faults,
)
from qprd.qupath.precision import DECIMALS
from qprd.qupath.project import PathClass
from qprd.qupath.storable import StoredAnnotation, storable, stored_annotations


def predictions_to_geojson(
    predictions: Predictions, image: Mapping[str, object] | None = None
) -> dict[str, object]:
    """A feature collection that QuPath accepts, by script, import or drag and drop.

    ``image`` is what is said of the slide (see `qprd.qupath.image_record`).

    Raises:
        QprdError: QuPath cannot store a prediction (see `qprd.qupath.storable`).
    """
    stored = storable(predictions)
    contour_class = PathClass(stored.contour_class, stored.contour_color)
    review_class = PathClass(REVIEW_CLASS, REVIEW_COLOR)
    features = [_tile_feature(tile) for tile in stored.tiles]
    for regions, path_class in ((stored.contours, contour_class), (stored.review, review_class)):
        features += [
            annotation_feature(item.id, item.polygon, path_class, item.name, item.measurements)
            for item in regions
        ]
    member = {
        **(image or {}),
        "metadata": dict(stored.metadata),
        "contourClass": stored.contour_class,
        "contourColor": list(stored.contour_color),
    }
    return dict(geojson.FeatureCollection(features, **{OWN: member}))


def predictions_to_text(predictions: Predictions, image: Mapping[str, object] | None = None) -> str:
    """`predictions_to_geojson` as JSON text without NaN or infinity."""
    return str(geojson.dumps(predictions_to_geojson(predictions, image), allow_nan=False))


def count_predictions(path: Path) -> int:
    """Number of objects in a file that `predictions_to_text` made, without reading each."""
    root, _ = read_root(path)
    features = root.get("features") if isinstance(root, dict) else None
    return len(features) if isinstance(features, list) else 0


def predictions_from_geojson(
    source: Path | str | Mapping[str, object], where: str | None = None
) -> Predictions:
    """Our objects of a GeoJSON file (`Path`), text (`str`) or parsed collection, and no others.

    Errors say ``where`` they are, which a file does by itself.

    Raises:
        QprdError: it cannot be read, is no GeoJSON, or an object of ours is malformed.
    """
    if isinstance(source, Mapping):
        root: object = source
    else:
        root, file = read_root(source)
        where = file or where
    member = own_member_of(root)
    tiles: list[PredictedTile] = []
    annotations: list[StoredAnnotation] = []
    objects = objects_of(root, where)
    refuse_faults(objects, where)
    for found in objects:
        if found.object_type == "tile" and is_own_tile(found.name, found.measurements):
            left, top, right, bottom = found.geometry.bounds
            size = round(right - left, DECIMALS), round(bottom - top, DECIMALS)
            tiles.append(PredictedTile(found.id, left, top, *size, found.measurements))
        elif (
            found.object_type == "annotation"
            and found.path_class is not None
            and is_own_contour(found.path_class.name, found.measurements)
        ):
            annotations.append(
                (found.id, found.geometry, found.name, found.measurements, found.path_class)
            )
    stored = stored_annotations(annotations, where)
    name, color = member.get("contourClass"), parse_color(member.get("contourColor"))
    return replace(
        stored,
        tiles=tuple(tiles),
        contour_class=name if isinstance(name, str) else stored.contour_class,
        contour_color=color or stored.contour_color,
        metadata=metadata_of(root),
    )


def metadata_of(root: object) -> dict[str, str]:
    """The entry metadata in a parsed file that `predictions_to_text` made."""
    metadata = own_member_of(root).get("metadata")
    if not isinstance(metadata, dict):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _tile_feature(tile: PredictedTile) -> geojson.Feature:
    left, top, right, bottom = tile.x, tile.y, tile.x + tile.width, tile.y + tile.height
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    measurements = {name: float(value) for name, value in tile.measurements.items()}
    return geojson.Feature(
        id=tile.id,
        geometry=geojson.Polygon([ring], precision=DECIMALS),
        properties={"objectType": "tile", "color": TILE_COLOR, "measurements": measurements},
    )
