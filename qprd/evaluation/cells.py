"""Cells of a score map, labeled by the drawn regions that their centers lie in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.evaluation.metrics import auroc
from qprd.predictions import ScoreMap


@dataclass(frozen=True)
class LabeledScores:
    """Scores of one slide whose truth is known.

    Attributes:
        y_true: (n,) bool, True for tumor.
        scores: (n,) finite raw scores.
    """

    y_true: NDArray[np.bool_]
    scores: NDArray[np.floating]


@dataclass(frozen=True)
class LabeledCells(LabeledScores):
    """Cells of a score map whose truth is known.

    Attributes:
        x: (n,) x of their centers in level-0 pixels of the QuPath frame.
        y: (n,) y of their centers.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def labeled_cells(
    score_map: ScoreMap, tumor_region: BaseGeometry, normal_region: BaseGeometry
) -> LabeledCells:
    """Label the scored cells whose centers lie in exactly one of two regions, in row-major order.

    Regions are polygons in level-0 pixels of the QuPath frame; invalid ones are repaired.
    """
    in_tumor = score_map.cells_inside(tumor_region)
    chosen = in_tumor ^ score_map.cells_inside(normal_region)
    x, y = score_map.centers(*np.nonzero(chosen))
    return LabeledCells(y_true=in_tumor[chosen], scores=score_map.scores[chosen], x=x, y=y)


def tile_auroc(
    score_map: ScoreMap, tumor_region: BaseGeometry, normal_region: BaseGeometry
) -> float | None:
    """AUROC of the cells of a score map, labeled as by `labeled_cells`.

    Returns:
        0..1; None unless there are cells of both classes.
    """
    cells = labeled_cells(score_map, tumor_region, normal_region)
    return auroc(cells.y_true, cells.scores)
