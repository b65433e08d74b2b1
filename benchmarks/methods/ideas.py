"""The ideas that ``--recipe best`` is made of, one changed at once, on features that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from methods.best import VIEWS, fit_discriminant
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import moment_columns, moment_features, teacher_of
from qprd.model.fisher import EXPONENT, SHRINKAGE
from qprd.model.frd import student_scales
from qprd.sampling.dataset import SYMMETRIES, symmetric
from qprd.sampling.stain import restained


@dataclass(frozen=True)
class Idea:
    """How a discriminant is fitted and scores; the defaults are those of ``--recipe best``.

    Attributes:
        shrinkage: See `qprd.model.fisher.SHRINKAGE`.
        exponent: See `qprd.model.fisher.EXPONENT`.
        squares: Whether the mean square of a channel is a feature, and not its mean alone.
        every_map: Whether all maps of the teacher count, or one of each stride.
        fitted_to: Symmetries of the training patches.
        stained: Whether they are stained anew.
        views: Symmetries of a patch that its score is the mean of.
    """

    shrinkage: float = SHRINKAGE
    exponent: float = EXPONENT
    squares: bool = True
    every_map: bool = True
    fitted_to: tuple[int, ...] = tuple(range(SYMMETRIES))
    stained: bool = True
    views: tuple[int, ...] = VIEWS


_BEST = Idea()

#: One change each.
IDEAS: Mapping[str, Idea] = {
    "best": _BEST,
    "shrinkage 0.02": replace(_BEST, shrinkage=0.02),
    "shrinkage 0.3": replace(_BEST, shrinkage=0.3),
    "difference of the means (exponent 0)": replace(_BEST, exponent=0.0),
    "exponent 0.5": replace(_BEST, exponent=0.5),
    "Fisher's discriminant (exponent 1)": replace(_BEST, exponent=1.0),
    "no squares": replace(_BEST, squares=False),
    "one map of each stride": replace(_BEST, every_map=False),
    "trained on one symmetry": replace(_BEST, fitted_to=(0,)),
    "trained on their own stain": replace(_BEST, stained=False),
    "trained on two symmetries": replace(_BEST, fitted_to=VIEWS),
    "one view of a patch": replace(_BEST, views=(0,)),
    "eight views of a patch": replace(_BEST, views=tuple(range(SYMMETRIES))),
}


@dataclass(frozen=True)
class IdeaScores:
    """What an idea says of validation and test patches, (M,) and (N,)."""

    val: Scores
    test: Scores


def idea_scores(
    images: tuple[Images, Images, Images],
    train_tumor: Labels,
    options: MethodOptions,
    ideas: Mapping[str, Idea] = IDEAS,
) -> dict[str, IdeaScores]:
    """Try every idea on one split.

    Args:
        images: Training, validation and test patches, (., 3, P, P).
        train_tumor: Labels of the training patches.
        options: Teacher and device.
        ideas: What to try.
    """
    train, val, test = (_Features(part, options) for part in images)
    found = {}
    for name, idea in ideas.items():
        columns = _columns(idea, options)
        classifier = fit_discriminant(
            [train.view(n, stained=idea.stained)[:, columns] for n in idea.fitted_to],
            train_tumor,
            shrinkage=idea.shrinkage,
            exponent=idea.exponent,
        )
        on_val, on_test = (
            np.mean(
                [classifier(part.view(symmetry)[:, columns]) for symmetry in idea.views], axis=0
            )
            for part in (val, test)
        )
        found[name] = IdeaScores(on_val, on_test)
    return found


class _Features:
    """Features of patches in their symmetries, computed when they are asked for."""

    def __init__(self, images: Images, options: MethodOptions) -> None:
        self._images = images
        self._features = moment_features(options.teacher, options.teacher_weights, options.device)
        self._known: dict[tuple[int, bool], NDArray[np.float64]] = {}

    def view(self, symmetry: int, *, stained: bool = False) -> NDArray[np.float64]:
        if (symmetry, stained) not in self._known:
            turned = np.ascontiguousarray(symmetric(self._images, symmetry))
            shown = restained(turned) if stained else turned
            self._known[symmetry, stained] = self._features(shown).astype(np.float64)
        return self._known[symmetry, stained]


def _columns(idea: Idea, options: MethodOptions) -> NDArray[np.int64]:
    """The features that an idea takes."""
    teacher = teacher_of(options)
    every = range(len(teacher.channels))
    chosen: Sequence[int] = every if idea.every_map else student_scales(teacher.strides)
    return moment_columns(teacher, chosen, squares=idea.squares)
