"""A reviewer who knows the drawn regions: what is drawn at first, how predictions are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, mapping
from shapely.geometry.base import BaseGeometry

from qprd.predictions import MEAN_PROBABILITY, REVIEW_RANK, PredictedAnnotation, Predictions

#: Share of a predicted region that must be of one kind; mixed ones are passed over.
LEAST_SHARE = 0.9
#: Share of it that is labeled already, above which nobody answers again.
_KNOWN_SHARE = 0.5


@dataclass(frozen=True)
class Truth:
    """The drawn regions of a slide in level-0 pixels; what lies in neither is not known."""

    tumor: MultiPolygon
    normal: MultiPolygon

    def part(self, x0: float, x1: float) -> Truth:
        """What lies between two x."""
        return Truth(*(_strip(region, x0, x1) for region in (self.tumor, self.normal)))

    def left(self, share: float) -> Truth:
        """The leftmost part of each region, of this share of its area."""
        return Truth(*(_leftmost(region, share) for region in (self.tumor, self.normal)))


@dataclass(frozen=True)
class Answer:
    """A predicted region and the class that the reviewer gives it."""

    region: PredictedAnnotation
    path_class: str


def in_order(predictions: Predictions) -> list[PredictedAnnotation]:
    """Regions and contours in the order in which ``groovy/review_next.groovy`` shows them."""
    review = sorted(predictions.review, key=lambda region: region.measurements[REVIEW_RANK])
    return [*review, *sorted(predictions.contours, key=lambda c: c.measurements[MEAN_PROBABILITY])]


def answers(predictions: Predictions, truth: Truth, known: BaseGeometry, most: int) -> list[Answer]:
    """The first so many answers that the drawn regions give.

    Args:
        predictions: Contours and regions to review.
        truth: The drawn regions.
        known: What is labeled already.
        most: Patience of the reviewer: answers, not regions looked at.
    """
    given: list[Answer] = []
    for region in in_order(predictions):
        area = region.polygon.area
        if region.polygon.intersection(known).area > _KNOWN_SHARE * area:
            continue
        for name, drawn in (("Tumor", truth.tumor), ("Normal", truth.normal)):
            if region.polygon.intersection(drawn).area >= LEAST_SHARE * area:
                given.append(Answer(region, name))
                known = known.union(region.polygon)
        if len(given) == most:
            break
    return given


def drawn_features(truth: Truth) -> list[dict[str, Any]]:
    """Regions as QuPath exports annotations that a person drew."""
    return [
        _feature(region, name, None, {})
        for name, region in (("Tumor", truth.tumor), ("Normal", truth.normal))
        if not region.is_empty
    ]


def answered_features(given: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers as QuPath exports them: our annotations, of another class by now."""
    return [
        _feature(a.region.polygon, a.path_class, a.region.name, a.region.measurements)
        for a in given
    ]


def _feature(
    region: BaseGeometry, path_class: str, name: str | None, measurements: Mapping[str, float]
) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": path_class, "color": [200, 0, 0]},
        "measurements": dict(measurements),
    }
    if name is not None:
        properties["name"] = name
    return {"type": "Feature", "geometry": mapping(region), "properties": properties}


def _strip(region: BaseGeometry, x0: float, x1: float) -> MultiPolygon:
    _, top, _, bottom = region.bounds
    clipped = shapely.make_valid(shapely.clip_by_rect(region, x0, top, x1, bottom))
    parts = [part for part in shapely.get_parts(clipped) if part.geom_type == "Polygon"]
    return MultiPolygon(parts)


def _leftmost(region: BaseGeometry, share: float) -> MultiPolygon:
    left, _, right, _ = region.bounds
    low, high = left, right
    while high - low > 0.5:
        middle = (low + high) / 2
        if _strip(region, left, middle).area < share * region.area:
            low = middle
        else:
            high = middle
    return _strip(region, left, high)
