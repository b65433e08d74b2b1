"""Predictions to and from the GeoJSON that QuPath reads.

Tiles are features of ``objectType`` tile, contours and regions to review annotations; entry
metadata and the contours' class travel in a member of the collection that QuPath passes over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import geojson
import numpy as np
import shapely
from shapely.geometry import Polygon

from qprd.errors import QprdError
from qprd.predictions import (
    MEAN_SCORE,
    OWN,
    OWN_PREFIX,
    REVIEW_CLASS,
    REVIEW_COLOR,
    REVIEW_RANK,
    SCORE,
    TILE_NAME,
    PredictedContour,
    PredictedRegion,
    PredictedTile,
    Predictions,
    ReviewRegion,
    is_object_id,
    is_own_class,
    is_own_contour,
    is_own_tile,
)
from qprd.qupath.geojson import (
    objects_of,
    own_member_of,
    parse_color,
    read_root,
)
from qprd.qupath.pathclasses import class_to_geojson
from qprd.qupath.precision import DECIMALS, area_on_grid, on_grid
from qprd.qupath.project import PathClass


def predictions_to_geojson(predictions: Predictions) -> dict[str, object]:
    """A feature collection that QuPath accepts, by script, import or drag and drop.

    Tiles are features of ``objectType`` tile, contours and regions to review annotations. Entry
    metadata and the contours' class travel in the collection's ``qprd`` member.

    Raises:
        QprdError: a prediction cannot be stored: an id that is no UUID, a number that is not
            finite, a contour that is not one valid polygon at QuPath's precision of 0.01 px, a
            metadata key that does not start with ``qprd: ``.
    """
    snapped = at_qupath_precision(predictions)
    for key in snapped.metadata:
        if not key.startswith(OWN_PREFIX):
            raise QprdError(f"Entry metadata of qprd must start with {OWN_PREFIX!r}: {key!r}.")
    features = [_tile_feature(tile) for tile in snapped.tiles]
    contour_class = PathClass(snapped.contour_class, snapped.contour_color)
    features += [_region_feature(contour, contour_class) for contour in snapped.contours]
    review_class = PathClass(REVIEW_CLASS, REVIEW_COLOR)
    features += [_region_feature(region, review_class) for region in snapped.review]
    member = {
        "metadata": dict(snapped.metadata),
        "contourClass": snapped.contour_class,
        "contourColor": list(snapped.contour_color),
    }
    return dict(geojson.FeatureCollection(features, **{OWN: member}))


def predictions_to_text(predictions: Predictions) -> str:
    """`predictions_to_geojson` as JSON text without NaN or infinity.

    Raises:
        QprdError: as `predictions_to_geojson`.
    """
    return str(geojson.dumps(predictions_to_geojson(predictions), allow_nan=False))


def count_predictions(path: Path) -> int:
    """Number of objects in a file that `predictions_to_text` made, without reading each.

    Raises:
        QprdError: it cannot be read or is no JSON.
    """
    root, _ = read_root(path)
    features = root.get("features") if isinstance(root, dict) else None
    return len(features) if isinstance(features, list) else 0


def predictions_from_geojson(source: Path | str | Mapping[str, object]) -> Predictions:
    """Our objects of a GeoJSON file (`Path`), text (`str`) or parsed collection, and no others.

    Raises:
        QprdError: it cannot be read, is no GeoJSON, or an object of ours is malformed.
    """
    if isinstance(source, Mapping):
        root: object = source
        where: str | None = None
    else:
        root, where = read_root(source)
    member = own_member_of(root)
    tiles: list[PredictedTile] = []
    contours: list[PredictedContour] = []
    review: list[ReviewRegion] = []
    own_class: PathClass | None = None
    for found in objects_of(root, where):
        if found.object_type == "tile" and is_own_tile(found.name, found.measurements):
            left, top, right, _ = found.geometry.bounds
            size_px = round(right - left, DECIMALS)
            tiles.append(PredictedTile(found.id, left, top, size_px, found.measurements))
        elif (
            found.object_type == "annotation"
            and found.path_class is not None
            and is_own_contour(found.path_class.name, found.measurements)
        ):
            if not isinstance(found.geometry, Polygon):
                kind = found.geometry.geom_type
                raise QprdError(f"A predicted contour is a {kind}, not a polygon.", where=where)
            told = found.id, found.geometry, found.name or "", found.measurements
            if REVIEW_RANK in found.measurements:
                review.append(ReviewRegion(*told))
            else:
                own_class = own_class or found.path_class
                contours.append(PredictedContour(*told))
    empty = Predictions(tiles=(), contours=())
    metadata = member.get("metadata")
    name, color = member.get("contourClass"), parse_color(member.get("contourColor"))
    return Predictions(
        tiles=tuple(tiles),
        contours=tuple(contours),
        contour_class=name
        if isinstance(name, str)
        else own_class.name
        if own_class
        else empty.contour_class,
        contour_color=color or (own_class.color if own_class else None) or empty.contour_color,
        metadata={k: v for k, v in metadata.items() if isinstance(v, str)}
        if isinstance(metadata, dict)
        else {},
        review=tuple(review),
    )


def at_qupath_precision(predictions: Predictions) -> Predictions:
    """The same predictions on QuPath's grid of 0.01 px, as they can be stored.

    Raises:
        QprdError: a contour does not stay one valid polygon.
    """
    places = np.array([(t.x, t.y, t.size_px) for t in predictions.tiles], float).reshape(-1, 3)
    rounded = on_grid(places)
    # Bits and not values, for 0.0 equals -0.0.
    unchanged = (places.view(np.int64) == rounded.view(np.int64)).all(axis=-1)
    return replace(
        predictions,
        tiles=tuple(
            tile if same else PredictedTile(tile.id, x, y, size_px, tile.measurements)
            for tile, (x, y, size_px), same in zip(
                predictions.tiles, rounded.tolist(), unchanged.tolist(), strict=True
            )
        ),
        contours=tuple(
            replace(contour, polygon=_polygon_on_grid(contour)) for contour in predictions.contours
        ),
        review=tuple(
            replace(region, polygon=_polygon_on_grid(region)) for region in predictions.review
        ),
    )


def _polygon_on_grid(region: PredictedRegion) -> Polygon:
    if not np.isfinite(shapely.get_coordinates(region.polygon)).all():
        raise QprdError(f"Contour {region.id} has a coordinate that is not a finite number.")
    drawn = shapely.force_2d(region.polygon)
    polygon = area_on_grid(drawn) if drawn.is_valid else None
    if not isinstance(polygon, Polygon):
        raise QprdError(f"Contour {region.id} is not one valid polygon at a precision of 0.01 px.")
    return polygon


def _tile_feature(tile: PredictedTile) -> geojson.Feature:
    if not tile.size_px > 0 or SCORE not in tile.measurements:
        raise QprdError(f"Tile {tile.id} has no size or no score.")
    if not math.isfinite(tile.x + tile.y + tile.size_px):
        raise QprdError(f"Tile {tile.id} has a coordinate that is not a finite number.")
    left, top, right, bottom = tile.x, tile.y, tile.x + tile.size_px, tile.y + tile.size_px
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return _feature(
        tile.id,
        [ring],
        {"objectType": "tile", "name": TILE_NAME, "measurements": _finite(tile.measurements)},
    )


def _region_feature(region: PredictedRegion, path_class: PathClass) -> geojson.Feature:
    if not is_own_class(path_class.name):
        raise QprdError(f"{path_class.name!r} is not a class of qprd's own.")
    require_region_measurements(region)
    properties: dict[str, object] = {
        "objectType": "annotation",
        "classification": class_to_geojson(path_class),
        "measurements": _finite(region.measurements),
    }
    if region.name:
        properties["name"] = region.name
    rings = [region.polygon.exterior, *region.polygon.interiors]
    return _feature(region.id, [list(ring.coords) for ring in rings], properties)


def require_region_measurements(region: PredictedRegion) -> None:
    """Refuse what could not be told from a person's annotation, or a contour from the rest.

    Raises:
        QprdError: it has no mean score, or a rank without being a region to review, or the reverse.
    """
    if MEAN_SCORE not in region.measurements:
        raise QprdError(f"Contour {region.id} has no mean score.")
    if (REVIEW_RANK in region.measurements) != isinstance(region, ReviewRegion):
        raise QprdError(f"Only regions to review have a rank, and each of them: {region.id}.")


def _feature(
    object_id: str, rings: list[list[tuple[float, float]]], properties: dict[str, object]
) -> geojson.Feature:
    if not is_object_id(object_id):
        raise QprdError(f"{object_id!r} is not an id that QuPath keeps (a UUID).")
    geometry = geojson.Polygon(rings, precision=DECIMALS)
    return geojson.Feature(id=object_id, geometry=geometry, properties=properties)


def _finite(measurements: Mapping[str, float]) -> dict[str, float]:
    plain = {name: float(value) for name, value in measurements.items()}
    for name, value in plain.items():
        if not math.isfinite(value):
            raise QprdError(f"The measurement {name!r} is not a finite number.")
    return plain
