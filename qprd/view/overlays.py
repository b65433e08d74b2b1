"""Layers over a slide: scores in colors, contours at any threshold, what was not scored."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.predictions import ScoreMap
from qprd.results.contours import ProbabilityOf, contours
from qprd.review.heatmap import COLORMAP, HATCH_COLOR
from qprd.settings import PredictConfig
from qprd.view.predicted import Predicted
from qprd.view.tiles import as_png

#: Largest edge of an overlay in its own pixels.
_OVERLAY_PX = 4096
#: Width of the stripes over what was not scored, in pixels of the overlay.
_STRIPE_PX = 3


def heatmap_png(predicted: Predicted, score_map: ScoreMap) -> bytes:
    """The scores in colors, `heatmap_step` cells a pixel; transparent where nothing was scored."""
    step = heatmap_step(score_map.scores.shape)
    scores = score_map.scores[::step, ::step]
    low, high = value_range(predicted, score_map)
    probability_of = predicted.probability_of
    values = scores if probability_of is None else probability_of(scores)
    colors = mpl.colormaps[COLORMAP](np.nan_to_num((values - low) / (high - low)), bytes=True)
    colors[..., 3] = np.where(np.isnan(scores), 0, 255)
    return as_png(colors)


def stripes_png(mask: NDArray[np.bool_]) -> bytes:
    """Stripes where a mask is True, transparent elsewhere."""
    step = heatmap_step(mask.shape)
    mask = mask[::step, ::step]
    rows, columns = np.indices(mask.shape)
    color = [int(HATCH_COLOR[i : i + 2], 16) for i in (1, 3, 5)]
    image = np.zeros((*mask.shape, 4), np.uint8)
    image[mask] = (*color, 60)
    image[mask & ((rows + columns) // _STRIPE_PX % 2 == 0)] = (*color, 230)
    return as_png(image)


def heatmap_step(shape: tuple[int, ...]) -> int:
    """Every how many rows and columns an overlay keeps, so that browsers can show it."""
    return -(-max(shape) // _OVERLAY_PX)


def value_range(predicted: Predicted, score_map: ScoreMap) -> tuple[float, float]:
    """Lowest and highest value of the colors, probabilities or raw scores; never equal."""
    if predicted.probability_of is not None:
        return 0.0, 1.0
    finite = score_map.scores[np.isfinite(score_map.scores)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, max(high, low + 1e-3 * max(abs(low), 1.0))


def contours_at(
    predicted: Predicted,
    score_map: ScoreMap,
    *,
    threshold: float | None,
    probability: float | None,
) -> dict[str, object]:
    """Outline the tumor at a threshold, with the other settings of the prediction.

    Args:
        predicted: The result; one that does not record its settings has the default ones.
        score_map: The scores of the result.
        threshold: A raw score; None takes the probability instead.
        probability: A probability, if the bundle is calibrated.

    Returns:
        When the result was made, the raw threshold, the outlines, and their area.

    Raises:
        QprdError: No threshold is given.
    """
    probability_of = predicted.probability_of
    if threshold is None and probability is not None and probability_of is not None:
        threshold = raw_threshold(probability, score_map, probability_of)
    if threshold is None or not np.isfinite(threshold):
        raise QprdError("There is no such threshold.", fix="Give a number.")
    result, default = predicted.result, PredictConfig()
    polygons = contours(
        score_map,
        threshold,
        (result.frame.width, result.frame.height),
        min_area_um2=default.min_area_um2 if result.min_area_um2 is None else result.min_area_um2,
        tolerance_um=default.tolerance_um if result.tolerance_um is None else result.tolerance_um,
        probability_of=probability_of,
    )
    return {
        "created": result.created,
        "threshold": threshold,
        "contours": [rings(polygon) for polygon in polygons],
        "tumorMm2": sum(polygon.area for polygon in polygons) * score_map.mpp**2 / 1e6,
    }


def raw_threshold(probability: float, score_map: ScoreMap, probability_of: ProbabilityOf) -> float:
    """The lowest raw score of a map's range whose probability is at least the one given.

    Probabilities rise with the scores. If none is high enough it is the highest score.
    """
    scores = score_map.scores[np.isfinite(score_map.scores)].astype(np.float64)
    if not scores.size:
        return 0.0
    low, high = float(scores.min()), float(scores.max())

    def reaches(score: float) -> bool:
        return float(probability_of(np.array([score]))[0]) >= probability

    if reaches(low):
        return low
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def rings(geometry: BaseGeometry) -> list[list[float]]:
    """Outlines as x, y, x, y, ... in level-0 pixels; points are left out."""
    found: list[list[float]] = []
    for part in shapely.get_parts(shapely.get_parts(geometry)):
        lines: Any = shapely.get_rings(part) if part.geom_type == "Polygon" else [part]
        for line in lines:
            points = shapely.get_coordinates(line)
            if len(points) > 1 and np.isfinite(points).all():
                found.append(points.round(1).ravel().tolist())
    return found
