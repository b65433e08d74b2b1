"""The ideas that ``--recipe best`` is made of, one changed at once, on features that are kept."""

from __future__ import annotations

from collections.abc import Mapping
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
        strides: The finest and the coarsest of the maps that count; those of ``best`` are the
            teacher's own.
        every_map: Whether all of them count, or one of each stride.
        context: Whether features of the same place at half the resolution count, too.
        fitted_to: Symmetries of the training patches.
        stained: Whether they are stained anew.
        views: Symmetries of a patch that its score is the mean of.
    """

    shrinkage: float = SHRINKAGE
    exponent: float = EXPONENT
    squares: bool = True
    strides: tuple[int, int] = (4, 16)
    every_map: bool = True
    context: bool = False
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
    "maps from stride 2 on": replace(_BEST, strides=(2, 16)),
    "maps up to stride 32": replace(_BEST, strides=(4, 32)),
    "trained on one symmetry": replace(_BEST, fitted_to=(0,)),
    "trained on their own stain": replace(_BEST, stained=False),
    "trained on two symmetries": replace(_BEST, fitted_to=VIEWS),
    "one view of a patch": replace(_BEST, views=(0,)),
    "four views of a patch": replace(_BEST, views=(0, 2, 5, 7)),
    "eight views of a patch": replace(_BEST, views=tuple(range(SYMMETRIES))),
}

#: For patches of which more is known than what they are judged by.
CONTEXT_IDEAS: Mapping[str, Idea] = {
    "best": _BEST,
    "with the same place at half the resolution": replace(_BEST, context=True),
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
    *,
    surrounded: bool = False,
) -> dict[str, IdeaScores]:
    """Try every idea on one split.

    Args:
        images: Training, validation and test patches, (., 3, P, P); 2P where they are surrounded.
        train_tumor: Labels of the training patches.
        options: Teacher and device.
        ideas: What to try.
        surrounded: Whether a patch is the middle half of its image.
    """
    train, val, test = (_Features(part, options, surrounded=surrounded) for part in images)
    found = {}
    for name, idea in ideas.items():
        columns = _columns(idea, options)
        classifier = fit_discriminant(
            [train.view(n, idea, stained=idea.stained)[:, columns] for n in idea.fitted_to],
            train_tumor,
            shrinkage=idea.shrinkage,
            exponent=idea.exponent,
        )
        on_val, on_test = (
            np.mean([classifier(part.view(n, idea)[:, columns]) for n in idea.views], axis=0)
            for part in (val, test)
        )
        found[name] = IdeaScores(on_val, on_test)
    return found


class _Features:
    """Features of patches in their symmetries, computed when they are asked for."""

    def __init__(self, images: Images, options: MethodOptions, *, surrounded: bool) -> None:
        self._images = images
        self._surrounded = surrounded
        self._features = moment_features(
            options.teacher, options.teacher_weights, options.device, every_block=True
        )
        self._known: dict[tuple[int, bool, bool], NDArray[np.float64]] = {}

    def view(self, symmetry: int, idea: Idea, *, stained: bool = False) -> NDArray[np.float64]:
        """Features of all maps (n, F), and after them those of the surroundings, if they count."""
        parts = [self._of(symmetry, stained=stained, context=False)]
        if idea.context:
            parts.append(self._of(symmetry, stained=stained, context=True))
        return np.concatenate(parts, axis=1)

    def _of(self, symmetry: int, *, stained: bool, context: bool) -> NDArray[np.float64]:
        key = symmetry, stained, context
        if key not in self._known:
            shown = np.ascontiguousarray(symmetric(self._images, symmetry))
            if stained:
                shown = restained(shown)
            if context:
                n, channels, edge, _ = shown.shape
                squares = shown.reshape(n, channels, edge // 2, 2, edge // 2, 2)
                shown = np.rint(squares.mean(axis=(3, 5))).astype(np.uint8)
            elif self._surrounded:
                margin = shown.shape[-1] // 4
                shown = np.ascontiguousarray(shown[..., margin:-margin, margin:-margin])
            self._known[key] = self._features(shown).astype(np.float64)
        return self._known[key]


def _columns(idea: Idea, options: MethodOptions) -> NDArray[np.int64]:
    """The features that an idea takes."""
    teacher = teacher_of(options, every_block=True)
    own = teacher_of(options).strides
    finest, coarsest = min(idea.strides[0], own[0]), max(idea.strides[1], own[-1])
    chosen = [n for n, stride in enumerate(teacher.strides) if finest <= stride <= coarsest]
    if not idea.every_map:
        scales = student_scales([teacher.strides[n] for n in chosen])
        chosen = [chosen[scale] for scale in scales]
    columns = moment_columns(teacher, chosen, squares=idea.squares)
    every = 2 * sum(teacher.channels)
    return np.concatenate([columns, columns + every]) if idea.context else columns
