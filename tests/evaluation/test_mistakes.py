from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qprd.evaluation.cells import LabeledCells
from qprd.evaluation.mistakes import Mistake, worst_mistakes, worst_of_slides


def cells(*rows: tuple[bool, float, float, float]) -> LabeledCells:
    y_true, scores, x, y = (np.array(column) for column in zip(*rows, strict=True))
    return LabeledCells(y_true, scores.astype(np.float32), x.astype(float), y.astype(float))


def test_the_worst_come_first_and_what_is_right_does_not_come() -> None:
    false_positives, misses = worst_mistakes(
        cells(
            (False, 5.0, 0, 0),
            (False, 9.0, 100, 0),
            (False, 1.0, 200, 0),
            (True, 2.0, 300, 0),
            (True, 0.5, 400, 0),
            (True, 3.0, 500, 0),
        ),
        3.0,
        limit=5,
        apart_px=50,
    )
    assert false_positives == [Mistake(100, 0, 9, False), Mistake(0, 0, 5, False)]
    assert misses == [Mistake(400, 0, 0.5, True), Mistake(300, 0, 2, True)]


def test_one_wrong_area_appears_once() -> None:
    rows = [(False, 5.0 + x / 100, float(x), 0.0) for x in range(0, 100, 10)]
    rows += [(False, 4.5, 500.0, 0.0)]
    false_positives, misses = worst_mistakes(cells(*rows), 1.0, limit=4, apart_px=200)
    assert [mistake.x for mistake in false_positives] == [90, 500]
    assert misses == []


spots = st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 40), st.integers(0, 40))


@given(st.lists(spots, min_size=1, max_size=40), st.integers(0, 6))
def test_mistakes_are_mistakes_keep_their_distance_and_none_is_worse(
    rows: list[tuple[bool, float, float, float]], threshold: int
) -> None:
    found = worst_mistakes(cells(*rows), threshold, limit=3, apart_px=10)
    for is_tumor, mistakes in zip((False, True), found, strict=True):
        assert all((m.score >= threshold) != is_tumor for m in mistakes)
        assert all(
            math.dist((a.x, a.y), (b.x, b.y)) >= 10 for a, b in itertools.combinations(mistakes, 2)
        )
        wrong = [s for y, s, *_ in rows if y == is_tumor and (s >= threshold) != is_tumor]
        assert bool(wrong) == bool(mistakes)
        if wrong:
            assert mistakes[0].score == (min(wrong) if is_tumor else max(wrong))


def test_one_bad_slide_does_not_hide_the_others() -> None:
    bad = [Mistake(i * 100, 0, 9 - i / 10, False) for i in range(8)]
    good = [Mistake(0, 0, 5, False)]
    chosen = worst_of_slides([bad, [], good], limit=4)
    assert chosen == ((0, bad[0]), (0, bad[1]), (0, bad[2]), (2, good[0]))
    # With nothing more to show of the others, the bad slide fills the rest.
    assert [index for index, _ in worst_of_slides([bad, [], good], limit=6)] == [0, 0, 0, 0, 0, 2]
    assert worst_of_slides([[], []], limit=4) == ()


def test_misses_of_several_slides_come_lowest_score_first() -> None:
    first, second = [Mistake(0, 0, 2, True)], [Mistake(0, 0, 1, True)]
    assert [index for index, _ in worst_of_slides([first, second], limit=4)] == [1, 0]
