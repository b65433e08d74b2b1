"""The worst mistakes of a model, each from another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.metrics import LabeledCells


@dataclass(frozen=True)
class Mistake:
    """A cell that the threshold puts on the wrong side.

    Attributes:
        x: Its center in level-0 pixels of the QuPath frame.
        y: Likewise.
        score: Its raw score.
        is_tumor: It is drawn tumor that was missed; else normal tissue that was called tumor.
    """

    x: float
    y: float
    score: float
    is_tumor: bool


def worst_mistakes(
    cells: LabeledCells, threshold: float, *, most: int, apart_px: float
) -> tuple[list[Mistake], list[Mistake]]:
    """The worst mistakes on one slide, no two of them near each other.

    Args:
        cells: Of the slide.
        threshold: Tumor is ``score >= threshold``.
        most: Of each kind at most.
        apart_px: Least distance of two mistakes of a kind, level-0 pixels: an area that is wrong
            as a whole appears once.

    Returns:
        False positives, highest score first, and misses, lowest score first.
    """
    called = cells.scores.astype(np.float64) >= threshold
    found = []
    for is_tumor in (False, True):
        wrong = np.flatnonzero((cells.y_tumor == is_tumor) & (called != is_tumor))
        badness = cells.scores[wrong] * (-1 if is_tumor else 1)
        order = wrong[np.argsort(-badness, kind="stable")]
        chosen = _apart(cells.x[order], cells.y[order], most=most, apart_px=apart_px)
        found.append(
            [
                Mistake(float(cells.x[i]), float(cells.y[i]), float(cells.scores[i]), is_tumor)
                for i in order[chosen]
            ]
        )
    return found[0], found[1]


def spread(of_slides: Sequence[Sequence[Mistake]], most: int) -> list[tuple[int, Mistake]]:
    """The worst mistakes of all slides, so that one bad slide does not hide the others.

    No slide has more than two, or its share if that is more, as long as others have any to show.

    Args:
        of_slides: Mistakes of one kind, worst first, for each slide.
        most: In all.

    Returns:
        Index of the slide and mistake, worst first.
    """
    having = sum(1 for mistakes in of_slides if mistakes)
    share = max(2, -(-most // having)) if having else 0
    ranked = [
        (rank >= share, index, mistake)
        for index, mistakes in enumerate(of_slides)
        for rank, mistake in enumerate(mistakes)
    ]
    ranked.sort(key=lambda item: (item[0], _mildness(item[2])))
    chosen = [(index, mistake) for _, index, mistake in ranked[:most]]
    return sorted(chosen, key=lambda item: _mildness(item[1]))


def _mildness(mistake: Mistake) -> float:
    return mistake.score if mistake.is_tumor else -mistake.score


def _apart(
    x: NDArray[np.float64], y: NDArray[np.float64], *, most: int, apart_px: float
) -> list[int]:
    """Indices of the first points that keep their distance from all chosen before."""
    free = np.ones(x.size, dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < most and free.any():
        first = int(np.argmax(free))
        chosen.append(first)
        free &= np.hypot(x - x[first], y - y[first]) >= apart_px
        free[first] = False
    return chosen
