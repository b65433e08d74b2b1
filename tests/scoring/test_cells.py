from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.scoring import cells as tiles
from qprd.scoring.cells import cells_in_tissue
from qprd.slides.slide import grid_size
from qprd.slides.tissue import TissueMask


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.floats(1, 1000))
def test_grid_covers_the_slide_without_empty_cells(width: int, height: int, cell: float) -> None:
    columns, rows = grid_size(width, height, cell)
    for count, length in ((columns, width), (rows, height)):
        assert count * cell >= length - cell * 1e-5
        assert (count - 1) * cell < length


@given(
    st.integers(0, 2**32 - 1),
    st.floats(1.5, 9),
    st.floats(2, 40),
    st.floats(0, 1),
    st.integers(1, 40),
)
def test_cells_equal_the_fraction_of_each_square(
    seed: int, downsample: float, cell: float, least: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = TissueMask(rng.random((13, 17)) > 0.5, downsample)
    columns, rows = grid_size(int(17 * downsample), int(13 * downsample), cell)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_BLOCK_CELLS", block)
        inside = cells_in_tissue(mask, cell, columns, rows, least)
    assert inside.shape == (rows, columns)
    x, y = np.meshgrid(np.arange(columns) * cell, np.arange(rows) * cell)
    fraction = mask.fractions(x, y, cell)
    clear = np.abs(fraction - max(least, 1e-6)) > 1e-5
    np.testing.assert_array_equal(inside[clear], (fraction >= max(least, 1e-6))[clear])


@pytest.mark.parametrize("cell", [3.0, 16.0, 50.0])
def test_full_and_empty_masks(cell: float) -> None:
    columns, rows = grid_size(160, 80, cell)
    whole = TissueMask(np.ones((80 * 2, 160 * 2), dtype=np.bool_), 1.0)
    empty = TissueMask(np.zeros((5, 10), dtype=np.bool_), 16.0)
    assert cells_in_tissue(whole, cell, columns, rows, 1.0).all()
    assert not cells_in_tissue(empty, cell, columns, rows, 0.0).any()
