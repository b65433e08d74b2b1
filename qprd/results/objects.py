"""Objects for QuPath: tiles and contours with their measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from shapely.geometry import Polygon

from qprd.predictions import (
    NUMBER,
    OWN,
    PROBABILITY,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ScoreMap,
    class_parts,
    object_id,
)
from qprd.results.contours import ProbabilityOf, contour_measurements


def predicted_objects(
    score_map: ScoreMap,
    polygons: Sequence[Polygon],
    *,
    bundle: str,
    entry_id: str,
    size: tuple[int, int],
    tumor_class: str,
    probability_of: ProbabilityOf | None = None,
    metadata: Mapping[str, str],
) -> Predictions:
    """Make a tile of each scored cell and a contour of each polygon, with measurements.

    Args:
        score_map: The scores.
        polygons: Contours in level-0 pixels.
        bundle: Name of the bundle; with ``entry_id`` it determines the ids of the objects.
        entry_id: Id of the project entry.
        size: Width and height of the image in level-0 pixels; tiles end there.
        tumor_class: The class from which that of the contours is derived.
        probability_of: Turns scores into probabilities; None leaves them out.
        metadata: Metadata for the entry.
    """
    return Predictions(
        tiles=_tiles(score_map, bundle, entry_id, size, probability_of),
        contours=tuple(
            PredictedContour(
                object_id(bundle, entry_id, "contour", index),
                polygon,
                None,
                {
                    NUMBER: float(index + 1),
                    **contour_measurements(score_map, polygon, probability_of),
                },
            )
            for index, polygon in enumerate(polygons)
        ),
        contour_class=": ".join((*class_parts(tumor_class), OWN)),
        metadata=metadata,
    )


def _tiles(
    score_map: ScoreMap,
    bundle: str,
    entry_id: str,
    size: tuple[int, int],
    probability_of: ProbabilityOf | None,
) -> tuple[PredictedTile, ...]:
    cells = np.argwhere(~np.isnan(score_map.scores))
    scores = score_map.scores[cells[:, 0], cells[:, 1]].astype(np.float64)
    edge = score_map.cell_px
    x, y = score_map.x + cells[:, 1] * edge, score_map.y + cells[:, 0] * edge
    places = np.stack([x, y, np.minimum(edge, size[0] - x), np.minimum(edge, size[1] - y)], axis=1)
    measured = {SCORE: scores}
    if probability_of is not None:
        measured[PROBABILITY] = probability_of(scores)
    return tuple(
        PredictedTile(
            object_id(bundle, entry_id, "tile", index),
            left,
            top,
            width,
            height,
            {name: float(values[index]) for name, values in measured.items()},
        )
        for index, (left, top, width, height) in enumerate(places.tolist())
    )
