from __future__ import annotations

import numpy as np
import pytest

from qprd.predictions import ScoreMap
from qprd.scoring.slide_score import slide_score
from qprd.settings import SlideScore


@pytest.mark.parametrize(("how", "expected"), [("max", 4.0), ("mean", 2.0), ("p99", 3.96)])
def test_the_slide_score_sums_up_the_map(how: SlideScore, expected: float) -> None:
    scores = np.array([[0, 1, np.nan], [2, 3, 4]], np.float32)
    assert slide_score(ScoreMap(scores, 0, 0, 64, 0.5), how) == pytest.approx(expected)


def test_a_map_without_tissue_has_no_slide_score() -> None:
    assert slide_score(ScoreMap(np.full((2, 2), np.nan, np.float32), 0, 0, 64, 0.5), "max") is None
