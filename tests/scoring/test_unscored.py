from __future__ import annotations

import numpy as np
import pytest

from qprd.predictions import ScoreMap
from qprd.scoring.unscored import unscored_areas, unscored_note
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask


def slide(surface: np.ndarray) -> TissueMask:
    """A mask of pixels of 10 x 10 level-0 pixels."""
    return TissueMask(surface == Surface.TISSUE, 10.0, 0.5, surface)


def scores(scored: np.ndarray) -> ScoreMap:
    """A map of cells of 20 x 20 level-0 pixels, two pixels of the mask wide."""
    values = np.where(scored, 0.5, np.nan).astype(np.float32)
    return ScoreMap(values, x=0.0, y=0.0, cell_px=20.0, mpp=0.5)


def test_areas_are_counted_by_cause() -> None:
    surface = np.full((8, 8), Surface.GLASS, dtype=np.uint8)
    surface[:4] = Surface.TISSUE
    surface[4, :3] = Surface.PEN
    surface[5, :2] = Surface.DARK
    surface[6, 0] = Surface.SMALL
    surface[7] = Surface.BORDER
    scored = np.zeros((4, 4), dtype=bool)
    scored[0] = True
    px_um2 = 25.0
    assert unscored_areas(slide(surface), scores(scored)) == {
        "under pen": 3 * px_um2,
        "too dark or gray": 2 * px_um2,
        "in pieces too small": px_um2,
        "in cells with too little tissue": 16 * px_um2,
    }


def test_a_note_says_how_much_and_why() -> None:
    surface = np.full((8, 8), Surface.TISSUE, dtype=np.uint8)
    surface[:2] = Surface.PEN
    scored = np.ones((4, 4), dtype=bool)
    scored[0] = False
    note = unscored_note(slide(surface), scores(scored))
    assert note is not None
    assert note.startswith("25% of what is not glass was not scored")
    assert "under pen" in note


@pytest.mark.parametrize("kind", [Surface.TISSUE, Surface.GLASS, Surface.BORDER])
def test_nothing_is_said_where_nothing_is_missing(kind: Surface) -> None:
    surface = np.full((8, 8), kind, dtype=np.uint8)
    scored = np.full((4, 4), kind == Surface.TISSUE)
    assert unscored_note(slide(surface), scores(scored)) is None


def test_tissue_beyond_the_map_is_not_scored() -> None:
    surface = np.full((8, 10), Surface.TISSUE, dtype=np.uint8)
    areas = unscored_areas(slide(surface), scores(np.ones((4, 4), dtype=bool)))
    assert areas == {"in cells with too little tissue": 16 * 25.0}


def test_a_mask_that_nobody_looked_at_says_nothing() -> None:
    mask = TissueMask(np.ones((8, 8), dtype=bool), 10.0, 0.5)
    assert unscored_areas(mask, scores(np.zeros((4, 4), dtype=bool))) == {}
