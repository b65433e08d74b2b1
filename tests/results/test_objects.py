from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from qprd.predictions import MEAN_PROBABILITY, NUMBER, PROBABILITY, SCORE, Predictions, ScoreMap
from qprd.results.objects import predicted_objects

SCORES = np.array([[0.5, np.nan], [2.0, 1.0]], np.float32)


def predicted(probability_of: Any = None) -> Predictions:
    return predicted_objects(
        ScoreMap(SCORES, 0.0, 0.0, 64.0, 0.5),
        [box(0, 0, 64, 100), box(64, 64, 90, 100)],
        bundle="b",
        entry_id="1",
        size=(90, 100),
        tumor_class="Tumor",
        probability_of=probability_of,
        metadata={},
    )


def test_each_scored_cell_is_a_tile_that_ends_at_the_edge_of_the_slide() -> None:
    tiles = predicted().tiles
    assert [(tile.x, tile.y, tile.width, tile.height) for tile in tiles] == [
        (0.0, 0.0, 64.0, 64.0),
        (0.0, 64.0, 64.0, 36.0),
        (64.0, 64.0, 26.0, 36.0),
    ]
    assert [tile.measurements for tile in tiles] == [{SCORE: 0.5}, {SCORE: 2.0}, {SCORE: 1.0}]


def test_contours_have_numbers_and_no_names_that_would_hide_the_tissue() -> None:
    found = predicted(lambda scores: scores / 4)
    assert [contour.name for contour in found.contours] == [None, None]
    assert [contour.measurements[NUMBER] for contour in found.contours] == [1.0, 2.0]
    assert found.contours[0].measurements[MEAN_PROBABILITY] == pytest.approx(1.25 / 4)
    assert found.tiles[1].measurements[PROBABILITY] == 0.5
