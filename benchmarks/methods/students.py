"""A student beside the discriminant, and what scores patches without tumor patches to learn from.

`qprd.training.recipes` has neither: a discriminant alone with tumor patches, a student alone
without. These are the alternatives that it was measured against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from methods.best import VIEWS, Best
from methods.frd import ReverseDistillation, TrainStudent
from methods.ideas import IdeaScores
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.memory import NormalMemory
from methods.teachers import moment_features
from qprd.evaluation.metrics import auroc
from qprd.model.fisher import SHRINKAGE
from qprd.model.frd import StandardizedFRD
from qprd.model.head import StandardizedHead
from qprd.model.loss import NORMAL, SimilarityLoss, map_similarity
from qprd.model.teacher import Teacher
from qprd.sampling.dataset import SYMMETRIES, symmetric

#: Shares of the student in the score; 1 is the student alone.
SHARES = (0.1, 0.3, 1.0)
#: Bootstrap samples of the validation patches that a share has to prove itself on.
_SAMPLES = 200
#: Weight of normal patches in a loss, as `qprd.model.loss.build_loss` has it.
_ALPHA = 0.1


class WhitenedHead(StandardizedHead):
    """Whitens teacher maps over normal patches, so that their cosine is in Mahalanobis's metric."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels)
        for scale, count in enumerate(channels, start=1):
            self.register_buffer(f"whitening_{scale}", torch.eye(count))

    def standardize(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """``C^-1/2 (f - mean) / std`` at each location of maps (N, C, H, W)."""
        return [
            torch.einsum("dc,nchw->ndhw", self.get_buffer(f"whitening_{scale}"), f)
            for scale, f in enumerate(super().standardize(maps), start=1)
        ]

    @torch.no_grad()
    def fit_standardization(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take mean, deviation and correlation, shrunk, of the channels over all locations."""
        known = list(batches)
        super().fit_standardization(known)
        standardized = [super(WhitenedHead, self).standardize(maps) for maps in known]
        for scale, parts in enumerate(zip(*standardized, strict=True), start=1):
            rows = torch.cat([f.transpose(0, 1).flatten(1) for f in parts], 1).double()
            correlation = torch.cov(rows, correction=0)
            shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * torch.eye(len(rows))
            values, vectors = torch.linalg.eigh(shrunk)
            self.get_buffer(f"whitening_{scale}").copy_(vectors / values.sqrt() @ vectors.mT)


class WhitenedFRD(StandardizedFRD):
    """The student of ``--recipe best``, on whitened maps."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher)
        self.head = WhitenedHead(self.channels)


def hinge_loss(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor], y: Tensor) -> Tensor:
    """``1 - S`` for normal patches, S where it is above 0 for tumor, summed over the maps."""
    total = torch.zeros((), device=y.device)
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        s = map_similarity(teacher_map, student_map, "image")
        tumor = (1 - _ALPHA) * s.clamp(min=0)
        total = total + torch.where(y == NORMAL, _ALPHA * (1 - s), tumor).mean()
    return total


_FOCAL = SimilarityLoss("focal", _ALPHA, 2.0)
STUDENTS: Mapping[str, TrainStudent] = {
    "standardized maps, focal loss": TrainStudent(StandardizedFRD, _FOCAL),
    "whitened maps, focal loss": TrainStudent(WhitenedFRD, _FOCAL),
    "whitened maps, hinge loss": TrainStudent(WhitenedFRD, hinge_loss),
}


def student_scores(
    images: tuple[Images, Images, Images],
    tumor: tuple[Labels, Labels],
    options: MethodOptions,
    seed: int,
) -> dict[str, IdeaScores]:
    """Try students of several kinds beside the discriminant on one split.

    Args:
        images: Training, validation and test patches, (., 3, P, P).
        tumor: Labels of training and validation patches. Those of validation give the unit of the
            two scores, their deviation over normal patches, and in one row the share.
        options: Teacher, batch size, device.
        seed: Of the students.
    """
    train, val, test = images
    best = Best(options)
    best.fit(train, tumor[0], val, tumor[1], seed=seed)
    alone = _in_units(IdeaScores(best.score(val), best.score(test)), tumor[1])
    found = {"best": alone}
    for label, kind in STUDENTS.items():
        student = ReverseDistillation(options, "best", focal=True, student=kind)
        student.fit(train, tumor[0], val, tumor[1], seed=seed)
        own = _in_units(IdeaScores(student.score(val), student.score(test)), tumor[1])
        mixed = {
            share: IdeaScores(*((1 - share) * a + share * b for a, b in _pairs(alone, own)))
            for share in SHARES
        }
        for share, scores in mixed.items():
            how = "alone" if share == 1 else f"share {share:g}"
            found[f"student of {label}, {how}"] = scores
        proven = {share: s for share, s in mixed.items() if is_proven(tumor[1], alone.val, s.val)}
        chosen = max(proven, key=lambda share: _area(tumor[1], proven[share].val), default=0.0)
        found[f"student of {label}, share that validation proves"] = proven.get(chosen, alone)
    return found


def is_proven(y_true: Labels, before: Scores, after: Scores) -> bool:
    """Whether AUROC rises by more than the standard error of the rise, by paired bootstrap."""
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(y_true), np.flatnonzero(~y_true)]
    rises = []
    for _ in range(_SAMPLES):
        drawn = np.concatenate([rng.choice(own, len(own)) for own in classes])
        rises.append(_area(y_true[drawn], after[drawn]) - _area(y_true[drawn], before[drawn]))
    return _area(y_true, after) - _area(y_true, before) > float(np.std(rises))


def normal_only_scores(
    images: tuple[Images, Images, Images], options: MethodOptions, seed: int
) -> dict[str, IdeaScores]:
    """Score patches by what learns from normal patches alone.

    Args:
        images: Training (all normal), validation and test patches, (., 3, P, P).
        options: Teacher, batch size, device.
        seed: Of the student.
    """
    train, val, test = images
    normal, nothing = np.zeros(len(train), bool), np.zeros(len(val), bool)
    student = ReverseDistillation(options, "best", focal=False)
    memory = NormalMemory(options)
    for method in (student, memory):
        method.fit(train, normal, val, nothing, seed=seed)
    distance = _Mahalanobis(train, options)
    found = {
        "student (best)": IdeaScores(student.score(val), student.score(test)),
        "Mahalanobis distance": IdeaScores(distance(val), distance(test)),
        f"memory, {options.memory_score}": IdeaScores(memory.score(val), memory.score(test)),
    }
    ranked = [
        np.mean([rankdata(getattr(scores, part)) for scores in found.values()], axis=0)
        for part in ("val", "test")
    ]
    return {**found, "mean rank of the three": IdeaScores(*ranked)}


class _Mahalanobis:
    """Distance of pooled features from normal patches, which are shown in all symmetries."""

    def __init__(self, images: Images, options: MethodOptions) -> None:
        self._compute = moment_features(options.teacher, options.teacher_weights, options.device)
        rows = np.concatenate([self._features(images, n) for n in range(SYMMETRIES)])
        self._mean, self._std = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
        z = (rows - self._mean) / self._std
        values, self._directions = np.linalg.eigh(z.T @ z / len(z))
        self._variances = (1 - SHRINKAGE) * values.clip(min=0) + SHRINKAGE

    def __call__(self, images: Images) -> Scores:
        """Mean over two symmetries, (n,)."""
        found = []
        for symmetry in VIEWS:
            z = (self._features(images, symmetry) - self._mean) / self._std
            found.append(((z @ self._directions) ** 2 / self._variances).sum(axis=1))
        return np.asarray(np.mean(found, axis=0), np.float64)

    def _features(self, images: Images, symmetry: int) -> NDArray[np.float64]:
        return self._compute(np.ascontiguousarray(symmetric(images, symmetry))).astype(np.float64)


def _in_units(scores: IdeaScores, val_tumor: Labels) -> IdeaScores:
    """Divide scores by their deviation over normal validation patches."""
    unit = scores.val[~val_tumor].std()
    return IdeaScores(scores.val / unit, scores.test / unit)


def _pairs(a: IdeaScores, b: IdeaScores) -> list[tuple[Scores, Scores]]:
    return [(a.val, b.val), (a.test, b.test)]


def _area(y_true: Labels, scores: Scores) -> float:
    area = auroc(y_true, scores)
    assert area is not None
    return area
