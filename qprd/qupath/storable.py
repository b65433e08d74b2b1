"""Predictions as QuPath can store them: checked, and on its grid of 0.01 px."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import shapely
from shapely.geometry import Polygon

from qprd.errors import QprdError
from qprd.predictions import (
    MEAN_SCORE,
    OWN_PREFIX,
    REVIEW_RANK,
    SCORE,
    PredictedAnnotation,
    PredictedTile,
    Predictions,
    ReviewRegion,
    is_object_id,
    is_own_class,
)
from qprd.qupath.precision import DECIMALS, area_on_grid, on_grid


def storable(predictions: Predictions) -> Predictions:
    """The same predictions on QuPath's grid.

    Raises:
        QprdError: QuPath cannot store one of them, or it would pass for an object of a person's:
            an id that is no UUID, a number that is not finite, a tile without size or score, a
            contour that is not one valid polygon at a precision of 0.01 px, or without a mean
            score, a rank of what is not to be reviewed, a class or metadata that are not ours.
    """
    for problem in _problems(predictions):
        raise _not_storable(problem)
    tiles = predictions.tiles
    places = np.array([(t.x, t.y, t.width, t.height) for t in tiles], float).reshape(-1, 4)
    rounded = on_grid(places)
    # Bits and not values, for 0.0 equals -0.0.
    unchanged = (places.view(np.int64) == rounded.view(np.int64)).all(axis=-1)
    return replace(
        predictions,
        tiles=tuple(
            tile if same else PredictedTile(tile.id, x, y, width, height, tile.measurements)
            for tile, (x, y, width, height), same in zip(
                tiles, rounded.tolist(), unchanged.tolist(), strict=True
            )
        ),
        contours=tuple(
            replace(contour, polygon=_polygon_on_grid(contour)) for contour in predictions.contours
        ),
        review=tuple(
            replace(region, polygon=_polygon_on_grid(region)) for region in predictions.review
        ),
    )


def _not_storable(problem: str) -> QprdError:
    return QprdError(problem, fix="Run qprd predict again; if it happens once more, report it.")


def _problems(predictions: Predictions) -> Iterator[str]:
    if not is_own_class(predictions.contour_class):
        yield f"{predictions.contour_class!r} is not a class of qprd's own."
    for key in predictions.metadata:
        if not key.startswith(OWN_PREFIX):
            yield f"Entry metadata of qprd must start with {OWN_PREFIX!r}: {key!r}."
    for tile in predictions.tiles:
        yield from _problems_of(tile)
        width, height = tile.width, tile.height
        if not math.isfinite(tile.x + tile.y + width + height) or not (
            round(width, DECIMALS) > 0 and round(height, DECIMALS) > 0
        ):
            yield f"Tile {tile.id} has no size or no place."
        if SCORE not in tile.measurements:
            yield f"Tile {tile.id} has no score."
    for region in predictions.annotations:
        yield from _problems_of(region)
        if MEAN_SCORE not in region.measurements:
            yield f"Contour {region.id} has no mean score."
        if (REVIEW_RANK in region.measurements) != isinstance(region, ReviewRegion):
            yield f"Only regions to review have a rank, and each of them: {region.id}."


def _problems_of(item: PredictedTile | PredictedAnnotation) -> Iterator[str]:
    if not is_object_id(item.id):
        yield f"{item.id!r} is not an id that QuPath keeps (a UUID)."
    for name, value in item.measurements.items():
        if not math.isfinite(value):
            yield f"The measurement {name!r} of {item.id} is not a finite number."


def _polygon_on_grid(region: PredictedAnnotation) -> Polygon:
    if not np.isfinite(shapely.get_coordinates(region.polygon)).all():
        raise _not_storable(f"Contour {region.id} has a coordinate that is not a finite number.")
    drawn = shapely.force_2d(region.polygon)
    polygon = area_on_grid(drawn) if drawn.is_valid else None
    if not isinstance(polygon, Polygon):
        raise _not_storable(
            f"Contour {region.id} is not one valid polygon at a precision of 0.01 px."
        )
    return polygon
