"""Predictions of one object, to be changed in one respect."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from shapely.geometry import box

from qprd.predictions import MEAN_SCORE, SCORE, PredictedContour, PredictedTile, Predictions

ID = str(uuid.UUID(int=7))


def one_tile(**changes: Any) -> Predictions:
    plain = PredictedTile(ID, 0.0, 0.0, 64.0, 64.0, {SCORE: 1.0})
    return Predictions(tiles=(replace(plain, **changes),), contours=())


def one_contour(polygon: Any = box(0, 0, 10, 10), **changes: Any) -> Predictions:  # noqa: B008
    plain = PredictedContour(ID, polygon, "region", {MEAN_SCORE: 1.0})
    return Predictions(tiles=(), contours=(replace(plain, **changes),))
