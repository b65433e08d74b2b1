"""From a score map to detections: points that the lesion FROC can count."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.predictions import Detections, ScoreMap

#: Distance within which only the best cell becomes a detection: 768 px at the challenge's
#: 0.243 um/px, as in Liu et al. (arXiv 1703.02442, 6 cells of 128 px) and in NCRF (12 of 64 px).
SUPPRESSION_UM = 768 * 0.243


def detections(
    score_map: ScoreMap,
    values: ArrayLike | None = None,
    *,
    minimum: float = -np.inf,
    radius_um: float = SUPPRESSION_UM,
) -> Detections:
    """Non-maximum suppression: the best cell, none within a radius of it, the next best, ...

    By default there is no lower limit. A limit would only cut the list's end off, and with it the
    FROC curve: where few false positives score high, its rates of 4 and 8 a slide are reached at
    low scores, and which scores are low differs from model to model. The radius bounds the number:
    at most 33 detections per mm² of tissue.

    Args:
        score_map: Raw scores; of cells with equal values the one with the higher score is better,
            then the first in row-major order.
        values: (rows, columns) on the same grid, such as probabilities; None takes the raw scores.
            NaN cells are never detections.
        minimum: Cells below it are no detections.
        radius_um: Between centers of cells. Shorter than a cell, every cell is a detection.

    Returns:
        Centers of the chosen cells and their values, best first.

    Raises:
        ValueError: The values are not on the map's grid, or the radius is negative.
    """
    scores = score_map.scores
    chosen_by = np.asarray(scores if values is None else values, np.float64)
    if chosen_by.shape != scores.shape:
        raise ValueError(f"values {chosen_by.shape} are not on the map's grid {scores.shape}")
    if not radius_um >= 0:
        raise ValueError(f"the radius must not be negative: {radius_um}")
    candidates = np.flatnonzero(chosen_by.ravel() >= minimum)
    keys = (-scores.ravel()[candidates], -chosen_by.ravel()[candidates])
    ordered = candidates[np.lexsort(keys)]
    radius_cells = radius_um / (score_map.cell_px * score_map.mpp)
    chosen = _suppress(ordered, chosen_by.shape, radius_cells)
    rows, columns = np.divmod(chosen, chosen_by.shape[1])
    return Detections(
        scores=chosen_by[rows, columns],
        x=score_map.x + (columns + 0.5) * score_map.cell_px,
        y=score_map.y + (rows + 0.5) * score_map.cell_px,
    )


def _suppress(
    ordered: NDArray[np.intp], shape: tuple[int, ...], radius_cells: float
) -> NDArray[np.intp]:
    """Those of the flat indices, best first, that no better chosen one is near."""
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
