"""Uncertain regions: the tissue that the model is least sure of, to be reviewed next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from qprd.predictions import ScoreMap
from qprd.results.contours import ProbabilityOf
from qprd.results.lesion_points import lesion_points

#: Edge of a region in patches: large enough for several training patches, small enough to be mostly
#: one kind of tissue.
REGION_PATCHES = 1.5
#: Smallest distance between the centers of two regions of a slide, in edges: neighbors would ask
#: the same question twice.
_SPACING = 2.0
#: Smallest share of a region that is scored tissue.
_MIN_TISSUE = 0.75


@dataclass(frozen=True)
class UncertainSquare:
    """A square of a slide that the model is unsure of.

    Attributes:
        polygon: Level-0 pixels, inside the image.
        distance: Mean distance of its cells from the threshold, >= 0, of probabilities or, without
            a calibration, of raw scores.
    """

    polygon: Polygon
    distance: float


def uncertain_regions(
    score_map: ScoreMap,
    threshold: float,
    *,
    patch_px: float,
    width: int,
    height: int,
    limit: int,
    probability_of: ProbabilityOf | None = None,
    known: BaseGeometry | None = None,
) -> list[UncertainSquare]:
    """Find squares of tissue whose cells are all close to the threshold, the closest first.

    The mean distance of a square's cells decides, not the distance of their mean: where tumor
    borders on normal tissue, some cells are above and some below, and none is in doubt.

    Args:
        score_map: The raw scores.
        threshold: Raw score at and above which tissue is called tumor.
        patch_px: Edge of a patch in level-0 pixels.
        width: Width of the image in level-0 pixels.
        height: Height of the image in level-0 pixels.
        limit: Largest number of regions.
        probability_of: Turns raw scores into probabilities, in which distances are comparable
            between slides; None measures them in raw scores.
        known: Regions that are labeled already, level-0 pixels; no region touches a cell centered
            in them.

    Returns:
        Disjoint squares of an odd number of cells, about `REGION_PATCHES` patches wide.
    """
    values = score_map.scores.astype(np.float64)
    level = threshold
    if probability_of is not None:
        values = probability_of(values)
        level = float(probability_of(np.array([threshold]))[0])
    # An odd number of cells.
    cells = 2 * max(0, round((REGION_PATCHES * patch_px / score_map.cell_px - 1) / 2)) + 1
    distance = _mean_distance(np.abs(values - level), cells)
    if known is not None and not known.is_empty:
        drawn = score_map.cells_inside(known)
        distance[ndimage.maximum_filter(drawn, size=cells, mode="constant")] = np.nan
    edge_px = cells * score_map.cell_px
    peaks = lesion_points(score_map, -distance, radius_um=_SPACING * edge_px * score_map.mpp)
    image = box(0, 0, width, height)
    regions = []
    for negative, x, y in zip(peaks.scores[:limit], peaks.x, peaks.y, strict=False):
        square = box(x - edge_px / 2, y - edge_px / 2, x + edge_px / 2, y + edge_px / 2)
        regions.append(UncertainSquare(shapely.intersection(square, image), float(-negative)))
    return regions


def in_order_of_review(
    of_slides: Mapping[str, Sequence[UncertainSquare]], limit: int
) -> list[tuple[str, UncertainSquare]]:
    """Order the regions of all slides: the first of each slide, then the second of each, and so on.

    Within a round, the closest to the threshold comes first. The regions of each slide are given
    closest first; no more than ``limit`` are returned, each with its slide.
    """
    rounds = zip_longest(*([(slide, r) for r in found] for slide, found in of_slides.items()))
    ordered = [
        item
        for one_of_each in rounds
        for item in sorted(filter(None, one_of_each), key=lambda item: item[1].distance)
    ]
    return ordered[:limit]


def _mean_distance(distance: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Mean over the scored cells of each square; NaN if its center or most of it is not scored."""
    scored = ~np.isnan(distance)
    share = ndimage.uniform_filter(scored.astype(np.float64), cells, mode="constant")
    total = ndimage.uniform_filter(np.where(scored, distance, 0.0), cells, mode="constant")
    enough = scored & (share >= _MIN_TISSUE)
    mean = np.full(distance.shape, np.nan)
    # The running sums of the filter may end a hair below 0.
    mean[enough] = np.maximum(total[enough], 0) / share[enough]
    return mean
