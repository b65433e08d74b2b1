from __future__ import annotations

import numpy as np
from shapely.geometry import Polygon, box

from qprd.evaluation.cells import labeled_cells, tile_auroc
from qprd.predictions import ScoreMap

SCORE_MAP = ScoreMap(
    np.array([[1, 2, 3], [4, 5, np.nan]], dtype=np.float32), x=100, y=50, cell_px=10, mpp=0.5
)


def test_cells_are_labeled_by_where_their_center_lies() -> None:
    # Left column is normal; the right two are tumor, but for the middle top one, which is both.
    cells = labeled_cells(
        SCORE_MAP,
        tumor_region=box(110, 50, 130, 70),
        normal_region=box(100, 50, 110, 70) | box(112, 50, 118, 60),
    )
    found = zip(cells.scores.tolist(), cells.y_true.tolist(), cells.x, cells.y, strict=True)
    assert list(found) == [
        (1.0, False, 105, 55),
        (3.0, True, 125, 55),
        (4.0, False, 105, 65),
        (5.0, True, 115, 65),
    ]


def test_cells_in_holes_and_outside_all_regions_have_no_label() -> None:
    ring = box(0, 0, 200, 200) - box(110, 50, 120, 60)
    cells = labeled_cells(SCORE_MAP, tumor_region=ring, normal_region=Polygon())
    assert cells.y_true.all()
    assert sorted(cells.scores.tolist()) == [1, 3, 4, 5]


def test_tile_auroc_is_that_of_the_labeled_cells() -> None:
    right, left = box(120, 50, 130, 70), box(100, 50, 110, 70)
    # Tumor 3; normal 1 and 4.
    assert tile_auroc(SCORE_MAP, tumor_region=right, normal_region=left) == 0.5
    assert tile_auroc(SCORE_MAP, tumor_region=right, normal_region=Polygon()) is None
