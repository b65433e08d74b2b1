"""Predictions to and from the GeoJSON that QuPath reads.

Tiles are features of ``objectType`` tile, contours and regions to review annotations; entry
metadata and the contours' class travel in a member of the collection that QuPath passes over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import geojson
from shapely.geometry import Polygon

from qprd.predictions import (
    CONTOUR_CLASS,
    CONTOUR_COLOR,
    OWN,
    REVIEW_CLASS,
    REVIEW_COLOR,
    REVIEW_RANK,
    TILE_COLOR,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
    is_own_contour,
    is_own_tile,
)
from qprd.qupath.geojson import (
    annotation_feature,
    objects_of,
    own_member_of,
    parse_color,
    read_root,
)
from qprd.qupath.precision import DECIMALS
from qprd.qupath.project import PathClass
from qprd.qupath.storable import storable


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


def predictions_from_geojson(
    source: Path | str | Mapping[str, object], where: str | None = None
) -> Predictions:
    """Our objects of a GeoJSON file (`Path`), text (`str`) or parsed collection, and no others.

    The class of the contours is that of the first of them, where the collection names none. Errors
    say ``where`` they are, which a file does by itself.

    Raises:
        QprdError: it cannot be read, or is no GeoJSON.
    """
    if isinstance(source, Mapping):
        root: object = source
    else:
        root, file = read_root(source)
        where = file or where
    tiles: list[PredictedTile] = []
    contours: list[PredictedContour] = []
    review: list[ReviewRegion] = []
    unusable: list[str] = []
    own_class: PathClass | None = None
    for found in objects_of(root, where):
        own_id, name, outline, measurements = (
            found.id,
            found.name,
            found.geometry,
            found.measurements,
        )
        path_class = found.path_class
        if found.fault is not None:
            unusable.append(f"{own_id}: {found.fault}")
        elif found.object_type == "tile" and is_own_tile(name, measurements):
            left, top, right, bottom = outline.bounds
            size = round(right - left, DECIMALS), round(bottom - top, DECIMALS)
            tiles.append(PredictedTile(own_id, left, top, *size, measurements))
        elif (
            found.object_type == "annotation"
            and path_class is not None
            and is_own_contour(path_class.name, measurements)
        ):
            if not isinstance(outline, Polygon):
                unusable.append(f"{own_id}: it is a {outline.geom_type}, not a polygon")
            elif REVIEW_RANK in measurements:
                review.append(ReviewRegion(own_id, outline, name, measurements))
            else:
                own_class = own_class or path_class
                contours.append(PredictedContour(own_id, outline, name, measurements))
    member = own_member_of(root)
    named, color = member.get("contourClass"), parse_color(member.get("contourColor"))
    drawn = own_class or PathClass(CONTOUR_CLASS)
    return Predictions(
        tiles=tuple(tiles),
        contours=tuple(contours),
        contour_class=named if isinstance(named, str) else drawn.name,
        contour_color=color or drawn.color or CONTOUR_COLOR,
        metadata=metadata_of(root),
        review=tuple(review),
        unusable=tuple(unusable),
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
