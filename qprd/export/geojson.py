"""The predictions of one slide as a file that is dropped on its image in QuPath."""

from __future__ import annotations

from dataclasses import replace

from qprd.predictions import Predictions
from qprd.qupath.predictions_geojson import predictions_to_text


def geojson_text(predictions: Predictions, *, tiles: bool) -> str:
    """Contours and regions to review, annotations of qprd's classes, as GeoJSON features.

    Raises:
        QprdError: a prediction cannot be stored.
    """
    return predictions_to_text(predictions if tiles else replace(predictions, tiles=()))
