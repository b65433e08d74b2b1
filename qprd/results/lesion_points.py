"""Lesion points: the places of a score map where a lesion is suspected, found by peak."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.predictions import LesionPoints, ScoreMap

#: Smallest distance between lesion points: 768 px at the challenge's 0.243 um/px, as in Liu et al.
#: (arXiv 1703.02442, 6 cells of 128 px) and in NCRF (12 of 64 px).
SUPPRESSION_UM = 768 * 0.243


def lesion_points(
    score_map: ScoreMap,
    values: ArrayLike | None = None,
    *,
    radius_um: float = SUPPRESSION_UM,
) -> LesionPoints:
    """Find peaks by non-maximum suppression: the best cell, the best one not near it, and so on.

    There is no lower limit. It would only cut off the end of the list, and with it the FROC curve:
    where few false positives score high, 4 or 8 per slide are reached at low scores, and which
    scores are low differs from model to model. The radius bounds the number of points: at most 33
    per mm² of tissue.

    Args:
        score_map: Raw scores; of cells with equal values the one with the higher score comes first,
            then the first in row-major order.
        values: (rows, columns) on the same grid, such as probabilities; None takes the raw scores.
            NaN cells are never chosen.
        radius_um: Between centers of cells. If it is shorter than a cell, every cell is a point.

    Returns:
        Centers of the chosen cells and their values, best first.

    References:
        Y. Liu et al., "Detecting cancer metastases on gigapixel pathology images", 2017.
    """
    scores = score_map.scores
    chosen_by = np.asarray(scores if values is None else values, np.float64)
    candidates = np.flatnonzero(~np.isnan(chosen_by.ravel()))
    keys = (-scores.ravel()[candidates], -chosen_by.ravel()[candidates])
    ordered = candidates[np.lexsort(keys)]
    radius_cells = radius_um / (score_map.cell_px * score_map.mpp)
    chosen = _suppress(ordered, chosen_by.shape, radius_cells)
    rows, columns = np.divmod(chosen, chosen_by.shape[1])
    return LesionPoints(chosen_by[rows, columns], *score_map.centers(rows, columns))


def _suppress(
    ordered: NDArray[np.intp], shape: tuple[int, ...], radius_cells: float
) -> NDArray[np.intp]:
    """Flat indices, from best to worst, without those near a better one that was kept."""
    height, width = shape
    reach = int(min(radius_cells, max(height, width)))
    span = np.arange(-reach, reach + 1)
    near = span[:, None] ** 2 + span[None, :] ** 2 <= radius_cells**2
    # With a border as wide as the reach no neighbor is outside, and none wraps around.
    padded_width = width + 2 * reach
    rows, columns = np.nonzero(near)
    offsets = (rows - reach) * padded_width + (columns - reach)
    # Looking up one byte is many times faster in a bytearray than in an array, setting many is not.
    is_suppressed = bytearray((height + 2 * reach) * padded_width)
    flags = np.frombuffer(is_suppressed, np.uint8)
    places = (ordered // width + reach) * padded_width + ordered % width + reach
    chosen = []
    for index, place in enumerate(places.tolist()):
        if not is_suppressed[place]:
            chosen.append(index)
            flags[place + offsets] = 1
    return ordered[np.array(chosen, np.intp)]
