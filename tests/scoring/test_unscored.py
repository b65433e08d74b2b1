from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qprd.predictions import ScoreMap
from qprd.scoring.cells import score_grid
from qprd.scoring.unscored import find_unscored
from qprd.slides.slide import Slide
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask, tissue_mask


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
    surface[6, 4:] = Surface.OUTSIDE
    surface[7] = Surface.BORDER
    scored = np.zeros((4, 4), dtype=bool)
    scored[0] = True
    found = find_unscored(slide(surface), scores(scored))
    px_mm2 = 25e-6
    assert found.areas_mm2 == pytest.approx(
        {
            "pen": 3 * px_mm2,
            "dark": 2 * px_mm2,
            "small_pieces": px_mm2,
            "outside_drawn_tissue": 4 * px_mm2,
            "little_tissue_in_cell": 16 * px_mm2,
            "border": 8 * px_mm2,
        }
    )
    assert found.scored_mm2 == pytest.approx(16 * px_mm2)
    assert found.share == pytest.approx(26 / 42)
    expected = surface != Surface.GLASS
    expected[[0, 1, 7]] = False
    assert np.array_equal(found.mask, expected)


def test_a_note_says_how_much_and_why() -> None:
    surface = np.full((8, 8), Surface.TISSUE, dtype=np.uint8)
    surface[:2] = Surface.PEN
    scored = np.ones((4, 4), dtype=bool)
    scored[0] = False
    found = find_unscored(slide(surface), scores(scored))
    assert found.is_much
    assert found.note() == "25% of what is not glass was not scored: 0.0004 mm² under pen"


@pytest.mark.parametrize("kind", [Surface.TISSUE, Surface.GLASS, Surface.BORDER])
def test_nothing_is_said_where_nothing_is_missing(kind: Surface) -> None:
    surface = np.full((8, 8), kind, dtype=np.uint8)
    scored = np.full((4, 4), kind == Surface.TISSUE)
    found = find_unscored(slide(surface), scores(scored))
    assert found.note() is None
    assert not found.mask.any()


def test_tissue_beyond_the_map_is_not_scored() -> None:
    surface = np.full((8, 10), Surface.TISSUE, dtype=np.uint8)
    found = find_unscored(slide(surface), scores(np.ones((4, 4), dtype=bool)))
    assert found.areas_mm2 == pytest.approx({"little_tissue_in_cell": 16 * 25e-6})
    assert found.mask.sum() == 16


def _grid_map(path: Path) -> tuple[TissueMask, ScoreMap]:
    """A map of a real slide as the default model scores it."""
    with Slide(path, default_mpp=0.5) as opened:
        tissue = tissue_mask(opened)
        grid = score_grid(opened, tissue, mpp=0.25, patch_px=256, stride=128, min_tissue=0.5)
    empty = grid.empty_map()
    return tissue, replace(empty, scores=np.where(grid.wanted, 1, np.nan).astype(np.float32))


@pytest.mark.parametrize(
    "name", ["colon_1.tif", "colon_2.tif", "cmu-1-small-region.svs", "tcga-cr-7395_no-mpp.svs"]
)
def test_nothing_is_said_of_ordinary_slides(shared_data: Path, name: str) -> None:
    found = find_unscored(*_grid_map(shared_data / "slides" / name))
    assert 0 < found.share < 0.05
    assert found.note() is None


def test_rims_of_fragments_are_said(shared_data: Path) -> None:
    note = find_unscored(*_grid_map(shared_data / "hard" / "fragments.tif")).note()
    assert note is not None
    assert "in cells with too little tissue" in note
