import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qprd.predictions import ScoreMap
from qprd.results.lesion_points import SUPPRESSION_UM, lesion_points


def on_map(scores: object, cell_px: float = 64.0, mpp: float = 0.5) -> ScoreMap:
    return ScoreMap(np.array(scores, np.float32), 100.0, 200.0, cell_px, mpp)


def plain_suppression(
    values: np.ndarray, scores: np.ndarray, radius_cells: float
) -> list[tuple[int, int]]:
    """The rule in words: the best cell, then the best of those not near a chosen one, ..."""
    left = {(r, c) for r, c in np.argwhere(~np.isnan(values)).tolist()}
    chosen = []
    while left:
        best = min(left, key=lambda cell: (-values[cell], -scores[cell], cell))
        chosen.append(best)
        left = {cell for cell in left if np.hypot(*np.subtract(cell, best)) > radius_cells}
    return chosen


@settings(max_examples=60)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 1, 2, 3.5, 6, np.nan]),
    ),
    st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.2, 20.0]),
)
def test_it_does_what_the_rule_says(scores: np.ndarray, radius_cells: float) -> None:
    # Probabilities with ties that the raw scores do not have.
    values = np.floor(scores / 2)
    found = lesion_points(on_map(scores), values, radius_um=radius_cells * 32)
    expected = plain_suppression(values, scores, radius_cells)
    assert found.scores.tolist() == [values[cell] for cell in expected]
    assert found.x.tolist() == [100 + (column + 0.5) * 64 for _, column in expected]
    assert found.y.tolist() == [200 + (row + 0.5) * 64 for row, _ in expected]


def test_no_two_are_near_and_none_is_left_out() -> None:
    scores = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    scores[10:20, 10:30] = np.nan
    found = lesion_points(on_map(scores))
    assert (np.diff(found.scores) <= 0).all()
    um = np.column_stack([found.x, found.y]) * 0.5
    distance = np.linalg.norm(um[:, None] - um[None], axis=2)
    assert distance[~np.eye(len(um), dtype=bool)].min() > SUPPRESSION_UM
    rows, columns = np.nonzero(~np.isnan(scores))
    cells = np.column_stack([100 + (columns + 0.5) * 64, 200 + (rows + 0.5) * 64]) * 0.5
    nearest = np.linalg.norm(cells[:, None] - um[None], axis=2).min(axis=1)
    assert nearest.max() <= SUPPRESSION_UM


def test_points_go_down_to_the_lowest_score() -> None:
    scores = [[0.0, np.nan, np.nan, np.nan, 0.4, np.nan, np.nan, np.nan, 0.9]]
    everything = lesion_points(on_map(scores), radius_um=64)
    np.testing.assert_allclose(everything.scores, [0.9, 0.4, 0.0], rtol=1e-6)


def test_the_radius_is_in_micrometers() -> None:
    """The same tissue with cells of half the pixels at twice the um/px."""
    scores = np.random.default_rng(1).random((12, 12))
    fine, coarse = lesion_points(on_map(scores, 64, 0.5)), lesion_points(on_map(scores, 32, 1.0))
    np.testing.assert_array_equal(fine.scores, coarse.scores)


@pytest.mark.parametrize("scores", [np.empty((0, 0)), np.full((3, 4), np.nan)])
def test_without_tissue_there_are_none(scores: np.ndarray) -> None:
    assert len(lesion_points(on_map(scores))) == 0


def test_infinite_radius_leaves_the_best() -> None:
    found = lesion_points(on_map([[1, 2], [5, 3]]), radius_um=np.inf)
    assert found.scores.tolist() == [5]
