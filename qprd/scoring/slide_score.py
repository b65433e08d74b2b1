"""One score for a whole slide."""

from __future__ import annotations

import numpy as np

from qprd.predictions import ScoreMap
from qprd.settings import SlideScore


def slide_score(score_map: ScoreMap, how: SlideScore) -> float | None:
    """Sum up a score map: its maximum, 99th percentile or mean; None without tissue."""
    scores = score_map.scores[~np.isnan(score_map.scores)]
    if not scores.size:
        return None
    if how == "p99":
        return float(np.percentile(scores, 99))
    return float(scores.max() if how == "max" else scores.mean(dtype=np.float64))
