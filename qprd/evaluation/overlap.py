"""Areas of contours and drawn regions: IoU, Dice, and what has no score; of one or many slides."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import shapely
from shapely.geometry.base import BaseGeometry

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Areas:
    """Areas of one slide; those of several slides can be added."""

    def __add__(self, other: Self) -> Self:
        added = zip(astuple(self), astuple(other), strict=True)
        return type(self)(*(a + b for a, b in added))


@dataclass(frozen=True)
class Overlap(Areas):
    """Areas of a predicted region, a true region and their intersection."""

    predicted: float = 0.0
    truth: float = 0.0
    both: float = 0.0

    def scaled(self, factor: float) -> Overlap:
        """The same areas in another unit."""
        return Overlap(*(area * factor for area in astuple(self)))

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

    @property
    def sensitivity(self) -> float | None:
        """Share of the true region that is predicted, 0..1; None if it is empty."""
        return self.both / self.truth if self.truth > 0 else None


@dataclass(frozen=True)
class Coverage(Areas):
    """How much of a drawn region was scored.

    Attributes:
        drawn: Area of the region in mm², as are the next two.
        not_tissue: Area without a score that is not taken for tissue, such as glass and pen.
    """

    drawn: float = 0.0
    not_scored: float = 0.0
    not_tissue: float = 0.0

    @classmethod
    def of(
        cls, region: BaseGeometry, scored: BaseGeometry, tissue: BaseGeometry, mpp: float
    ) -> Coverage:
        """Measure a region of a slide with pixels of ``mpp`` micrometers."""
        lost = shapely.difference(region, scored)
        not_tissue = shapely.difference(lost, tissue)
        return cls(*(part.area * mpp**2 / 1e6 for part in (region, lost, not_tissue)))

    def figures(self) -> dict[str, float | None]:
        """The areas, in mm², and the share without a score, as reports have them."""
        return {
            "drawn_mm2": self.drawn,
            "not_scored_mm2": self.not_scored,
            "not_tissue_mm2": self.not_tissue,
            "share": self.share,
        }

    @property
    def share(self) -> float | None:
        """Share of the region without a score, 0..1; None if nothing is drawn."""
        return self.not_scored / self.drawn if self.drawn > 0 else None


def polygon_overlap(
    predicted: BaseGeometry, truth: BaseGeometry, within: BaseGeometry | None = None
) -> Overlap:
    """Measure the overlap of two regions, such as contours and the drawn tumor, in their units.

    Invalid polygons are repaired. Only what is ``within`` a third region counts, if there is one.

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
