"""Overlap of contours and drawn regions: areas, IoU and Dice, of one slide or of many."""

from __future__ import annotations

from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class Overlap:
    """Areas of a predicted region, a true region and their intersection.

    Overlaps of several slides can be added.

    Attributes:
        predicted: Area of the predicted region.
        truth: Area of the true region.
        both: Area of their intersection.
    """

    predicted: float = 0.0
    truth: float = 0.0
    both: float = 0.0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.predicted + other.predicted, self.truth + other.truth, self.both + other.both
        )

    def scaled(self, factor: float) -> Overlap:
        """The same areas in another unit."""
        return Overlap(self.predicted * factor, self.truth * factor, self.both * factor)

    @property
    def iou(self) -> float | None:
        """Intersection over union (Jaccard index), 0..1; None if both regions are empty."""
        union = self.predicted + self.truth - self.both
        return self.both / union if union > 0 else None

    @property
    def dice(self) -> float | None:
        """Dice coefficient, 2 * both / (predicted + truth), 0..1; None if both are empty."""
        total = self.predicted + self.truth
        return 2 * self.both / total if total > 0 else None


def polygon_overlap(
    predicted: BaseGeometry, truth: BaseGeometry, within: BaseGeometry | None = None
) -> Overlap:
    """Measure the overlap of two regions, such as contours and the drawn tumor.

    Args:
        predicted: Polygons or multipolygons; invalid ones are repaired.
        truth: Polygons or multipolygons in the same frame.
        within: Only the area inside it counts, such as the annotated part of a slide.

    Returns:
        Areas in square units of the frame.

    Examples:
        >>> from shapely import box
        >>> round(polygon_overlap(box(0, 0, 2, 1), box(1, 0, 3, 1)).iou, 3)
        0.333
    """
    a, b = shapely.make_valid(predicted), shapely.make_valid(truth)
    if within is not None:
        window = shapely.make_valid(within)
        a, b = shapely.intersection(a, window), shapely.intersection(b, window)
    return Overlap(float(a.area), float(b.area), float(shapely.intersection(a, b).area))
