"""Objects for QuPath: tiles and contours with their measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from shapely.geometry import Polygon

from qprd.predictions import (
    OWN,
    PROBABILITY,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ScoreMap,
    class_parts,
    contour_name,
    object_id,
)
from qprd.results.contours import ProbabilityOf, contour_measurements


def predicted_objects(
    score_map: ScoreMap,
    polygons: Sequence[Polygon],
    *,
    bundle: str,
    entry_id: str,
    tumor_class: str = "Tumor",
    probability_of: ProbabilityOf | None = None,
    metadata: Mapping[str, str],
) -> Predictions:
    """Make a tile of each scored cell and a contour of each polygon, with measurements.

    Args:
        score_map: The scores.
        polygons: Contours in level-0 pixels.
        bundle: Name of the bundle; with ``entry_id`` it determines the ids of the objects.
        entry_id: Id of the project entry.
        tumor_class: The class from which that of the contours is derived.
        probability_of: Turns scores into probabilities; None leaves them out.
        metadata: Metadata for the entry.
    """
    return Predictions(
        tiles=_tiles(score_map, bundle, entry_id, probability_of),
        contours=tuple(
            PredictedContour(
                object_id(bundle, entry_id, "contour", index),
                polygon,
                contour_name(index + 1),
                contour_measurements(score_map, polygon, probability_of),
            )
            for index, polygon in enumerate(polygons)
        ),
        contour_class=": ".join((*class_parts(tumor_class), OWN)),
        metadata=metadata,
    )


def _tiles(
    score_map: ScoreMap, bundle: str, entry_id: str, probability_of: ProbabilityOf | None
) -> tuple[PredictedTile, ...]:
    cells = np.argwhere(~np.isnan(score_map.scores))
    scores = score_map.scores[cells[:, 0], cells[:, 1]].astype(np.float64)
    measured = {SCORE: scores}
    if probability_of is not None:
        measured[PROBABILITY] = probability_of(scores)
    return tuple(
        PredictedTile(
            object_id(bundle, entry_id, "tile", index),
            score_map.x + column * score_map.cell_px,
            score_map.y + row * score_map.cell_px,
            score_map.cell_px,
            {name: float(values[index]) for name, values in measured.items()},
        )
        for index, (row, column) in enumerate(cells.tolist())
    )
