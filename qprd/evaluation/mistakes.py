"""The worst mistakes of a model, each from a different place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.cells import LabeledCells


@dataclass(frozen=True)
class Mistake:
    """A cell that the threshold puts on the wrong side.

    Attributes:
        x: x of its center in level-0 pixels of the QuPath frame.
        y: y of its center.
        is_tumor: True for drawn tumor that was missed, False for normal tissue called tumor.
    """

    x: float
    y: float
    score: float
    is_tumor: bool

    @property
    def mildness(self) -> float:
        """Smaller for worse mistakes: a low score of tumor, or a high one of normal tissue."""
        return self.score if self.is_tumor else -self.score


def worst_mistakes(
    cells: LabeledCells, threshold: float, *, limit: int, apart_px: float
) -> tuple[list[Mistake], list[Mistake]]:
    """Find the worst mistakes on one slide, at most ``limit`` of each kind.

    Two of a kind are at least ``apart_px`` level-0 pixels apart, so that an area that is wrong as a
    whole appears once.

    Returns:
        False positives, highest score first, and misses, lowest score first.
    """
    called = cells.scores.astype(np.float64) >= threshold
    found = []
    for is_tumor in (False, True):
        wrong = np.flatnonzero((cells.y_true == is_tumor) & (called != is_tumor))
        mildness = cells.scores[wrong] * (1 if is_tumor else -1)
        order = wrong[np.argsort(mildness, kind="stable")]
        chosen = _apart(cells.x[order], cells.y[order], limit=limit, apart_px=apart_px)
        found.append(
            [
                Mistake(float(cells.x[i]), float(cells.y[i]), float(cells.scores[i]), is_tumor)
                for i in order[chosen]
            ]
        )
    return found[0], found[1]


def worst_of_slides(
    slides: Sequence[Sequence[Mistake]], limit: int
) -> tuple[tuple[int, Mistake], ...]:
    """Choose the worst mistakes of all slides without letting one bad slide hide the others.

    A slide gives at most two, or an equal share of ``limit`` if that is more, as long as other
    slides have any left. Those of each slide are of one kind, worst first.

    Returns:
        Index of the slide and mistake, worst first.
    """
    n_with_mistakes = sum(1 for mistakes in slides if mistakes)
    share = max(2, -(-limit // n_with_mistakes)) if n_with_mistakes else 0
    ranked = [
        (rank >= share, mistake.mildness, index, mistake)
        for index, mistakes in enumerate(slides)
        for rank, mistake in enumerate(mistakes)
    ]
    ranked.sort(key=lambda item: item[:2])
    chosen = sorted(ranked[:limit], key=lambda item: item[1])
    return tuple((index, mistake) for _, _, index, mistake in chosen)


def _apart(
    x: NDArray[np.float64], y: NDArray[np.float64], *, limit: int, apart_px: float
) -> list[int]:
    """Indices of the first points that keep their distance from all chosen before."""
    free = np.ones(x.size, dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < limit and free.any():
        first = int(np.argmax(free))
        chosen.append(first)
        free &= np.hypot(x - x[first], y - y[first]) >= apart_px
        free[first] = False
    return chosen
