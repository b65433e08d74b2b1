"""The ideas that `--recipe best` is made of, each on or off, on teacher maps that are kept.

All ideas of a seed share the teacher's maps of the patches and of their mirror images, so that
many can be tried where a training by the library would decode, turn and encode each patch again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import teacher_maps, teacher_of
from qprd.model.frd import build_trained_parts
from qprd.model.head import PENALTY_C, FusionHead, LinearClassifier, fit_fusion, fit_linear
from qprd.model.loss import build_loss, map_similarity
from qprd.settings import Recipe, TrainConfig
from qprd.training.recipes import choose_share

#: Flips and quarter turns of a square; the last one swaps x and y.
_SYMMETRIES = 8
_TRANSPOSED = 7
_BATCH = 64
_DEFAULTS = TrainConfig(recipe="best")


@dataclass(frozen=True)
class StudentIdea:
    """How a student is built and trained; the defaults are those of ``--recipe best``.

    Attributes:
        architecture: Of the small student: ``best`` has half the width and one block a stage.
        standardized: Whether it learns maps standardized over normal patches.
        loss: ``hinge``, or the paper's focal loss, ``log``.
        annealed: A rate that falls to nothing, or a constant one.
        turned: Whether it sees flips and quarter turns.
        epochs: Passes over the training patches.
    """

    architecture: Recipe = "best"
    standardized: bool = True
    loss: Literal["hinge", "log"] = "hinge"
    annealed: bool = True
    turned: bool = True
    epochs: int = _DEFAULTS.epochs


_BEST = StudentIdea()

#: One change to the student each.
STUDENT_IDEAS: Mapping[str, StudentIdea] = {
    "full width, two blocks a stage": replace(_BEST, architecture="paper"),
    "maps not standardized": replace(_BEST, standardized=False),
    "focal log loss": replace(_BEST, loss="log"),
    "constant rate": replace(_BEST, annealed=False),
    "no flips and turns": replace(_BEST, turned=False),
}

#: Inverse strengths of the linear classifier's penalty.
PENALTIES = (0.01, PENALTY_C, 1.0)


@dataclass(frozen=True)
class IdeaScores:
    """What an idea says of validation and test patches, (M,) and (N,)."""

    val: Scores
    test: Scores


class KeptMaps:
    """Teacher maps of patches in some symmetries, 16 bits, in memory.

    Args:
        images: (N, 3, P, P).
        symmetries: Which of the 8, by number.
        options: Teacher and device.
    """

    def __init__(self, images: Images, symmetries: Sequence[int], options: MethodOptions) -> None:
        teacher = teacher_of(options)
        self.device = teacher.get_buffer("_mean").device
        self._maps: dict[int, list[Tensor]] = {}
        for symmetry in symmetries:
            batches = list(teacher_maps(teacher, _turned(images, symmetry)))
            self._maps[symmetry] = [torch.cat(scale).half() for scale in zip(*batches, strict=True)]

    @property
    def symmetries(self) -> tuple[int, ...]:
        """Those that are kept."""
        return tuple(self._maps)

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three maps."""
        first, second, third = (m.shape[1] for m in next(iter(self._maps.values())))
        return first, second, third

    def take(self, patches: NDArray[np.int64], symmetries: NDArray[np.int64]) -> list[Tensor]:
        """Three maps (n, C, H, W) of patches, each in a symmetry of its own."""
        return [
            torch.stack(
                [
                    self._maps[symmetry][scale][patch]
                    for patch, symmetry in zip(patches.tolist(), symmetries.tolist(), strict=True)
                ]
            ).float()
            for scale in range(3)
        ]

    def batches(self, symmetry: int, chosen: Labels | None = None) -> Iterator[list[Tensor]]:
        """The maps of all or the chosen patches, a batch at a time."""
        maps = self._maps[symmetry]
        patches = np.arange(len(maps[0])) if chosen is None else np.flatnonzero(chosen)
        for start in range(0, len(patches), _BATCH):
            batch = torch.from_numpy(patches[start : start + _BATCH]).to(self.device)
            yield [scale[batch].float() for scale in maps]

    def pooled(self, symmetry: int, head: FusionHead) -> NDArray[np.float64]:
        """Standardized maps averaged over the patch, (N, C1 + C2 + C3)."""
        return np.concatenate(
            [
                torch.cat([m.mean((2, 3)) for m in head.standardize(maps)], 1).cpu().double()
                for maps in self.batches(symmetry)
            ]
        )


def idea_scores(
    images: tuple[Images, Images, Images],
    tumor: tuple[Labels, Labels],
    options: MethodOptions,
    seed: int,
    students: Mapping[str, StudentIdea] = STUDENT_IDEAS,
) -> dict[str, IdeaScores]:
    """Scores by every idea, for one seed.

    Args:
        images: For training (N), validation (M) and test (K), each (., 3, P, P).
        tumor: Labels for training (N,) and validation (M,), both classes in each. Those for
            validation choose the share of the fusion and nothing else.
        options: Teacher, batch size, device.
        seed: Of the students.
        students: Changes to try.
    """
    train_tumor, val_tumor = tumor
    train = KeptMaps(images[0], range(_SYMMETRIES), options)
    held_out = [KeptMaps(part, (0, _TRANSPOSED), options) for part in images[1:]]
    head = FusionHead(train.channels).to(train.device)
    head.fit_standardization(train.batches(0, ~train_tumor))
    found: dict[str, IdeaScores] = {}

    pooled = [train.pooled(symmetry, head) for symmetry in train.symmetries]
    classifiers = {(1, PENALTIES[-1]): fit_linear(pooled[:1], train_tumor, penalty_c=PENALTIES[-1])}
    for c in PENALTIES:
        classifiers[_SYMMETRIES, c] = fit_linear(pooled, train_tumor, penalty_c=c)
    for (views, c), classifier in classifiers.items():
        val, test = (_decisions(classifier, part, (0,), head) for part in held_out)
        seen = "one symmetry" if views == 1 else "all symmetries"
        found[f"linear: {seen}, C = {c:g}"] = IdeaScores(val, test)

    best = _Student(_BEST, train, train_tumor, options, seed, head=head)
    found["student: as in best"] = IdeaScores(*(best.differences(part, (0,)) for part in held_out))
    for label, idea in students.items():
        student = _Student(idea, train, train_tumor, options, seed, head=head)
        val, test = (student.differences(part, (0,)) for part in held_out)
        found[f"student: {label}"] = IdeaScores(val, test)

    classifier = classifiers[_SYMMETRIES, PENALTY_C]
    for shown, suffix in (((0,), ", not transposed"), ((0, _TRANSPOSED), "")):
        parts = (train, *held_out)
        fused = _fused(
            [_decisions(classifier, part, shown, head) for part in parts],
            [best.differences(part, shown) for part in parts],
            train_tumor,
            val_tumor,
        )
        found |= {f"fusion: {label}{suffix}": scores for label, scores in fused.items()}
    return found


def _fused(
    decisions: Sequence[Scores],
    differences: Sequence[Scores],
    train_tumor: Labels,
    val_tumor: Labels,
) -> dict[str, IdeaScores]:
    """Fusions of what linear classifier and student say of training, validation, test patches."""

    def with_share(share: float) -> IdeaScores:
        fusion = fit_fusion(decisions[0], differences[0], train_tumor, share)
        _, val, test = (fusion(*part) for part in zip(decisions, differences, strict=True))
        return IdeaScores(val, test)

    chosen = choose_share(val_tumor, lambda share: with_share(share).val)
    return {
        "linear alone": with_share(0.0),
        "student alone": with_share(1.0),
        "half and half": with_share(0.5),
        "share chosen on validation": with_share(chosen),
    }


def _decisions(
    classifier: LinearClassifier, part: KeptMaps, views: Sequence[int], head: FusionHead
) -> Scores:
    return np.mean([classifier(part.pooled(symmetry, head)) for symmetry in views], axis=0)


class _Student:
    """A bottleneck and a student trained on kept maps."""

    def __init__(
        self,
        idea: StudentIdea,
        maps: KeptMaps,
        tumor: Labels,
        options: MethodOptions,
        seed: int,
        *,
        head: FusionHead,
    ) -> None:
        self._head = head if idea.standardized else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = build_trained_parts(options.teacher, maps.channels, idea.architecture)
        self._network = nn.Sequential(*parts).to(maps.device)
        self._train(idea, maps, tumor, options, np.random.default_rng(seed))

    def _train(
        self,
        idea: StudentIdea,
        maps: KeptMaps,
        tumor: Labels,
        options: MethodOptions,
        random: np.random.Generator,
    ) -> None:
        loss = build_loss(
            n_tumor=int(tumor.sum()),
            n_normal=int((~tumor).sum()),
            recipe="best" if idea.loss == "hinge" else "paper",
        )
        lr = _DEFAULTS.lr
        optimizer = torch.optim.Adam(self._network.parameters(), lr=lr, betas=(0.5, 0.999))
        starts = range(0, len(tumor) - 1, options.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            lr,
            total_steps=idea.epochs * len(starts),
            pct_start=0.1,
            cycle_momentum=False,
        )
        y = torch.from_numpy(~tumor).float()
        for _ in range(idea.epochs):
            order = random.permutation(len(tumor))
            symmetries = random.integers(_SYMMETRIES if idea.turned else 1, size=len(tumor))
            for start in starts:
                patches = order[start : start + options.batch_size]
                teacher, student = self._both(maps.take(patches, symmetries[patches]))
                value = loss(teacher, student, y[patches].to(maps.device))
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                if idea.annealed:
                    schedule.step()
        self._network.eval()

    def _both(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if self._head is not None:
            maps = self._head.standardize(maps)
        return maps, self._network(maps)

    @torch.inference_mode()
    def differences(self, part: KeptMaps, views: Sequence[int]) -> Scores:
        """Sum over scales of the mean 1 - cosine of a patch, (n,), mean over the views."""
        scores = []
        for symmetry in views:
            batches = [
                torch.stack(
                    [
                        1 - map_similarity(f, imitated, "location").mean((1, 2))
                        for f, imitated in zip(*self._both(maps), strict=True)
                    ]
                ).sum(0)
                for maps in part.batches(symmetry)
            ]
            scores.append(torch.cat(batches).cpu().double().numpy())
        return np.asarray(np.mean(scores, axis=0), np.float64)


def _turned(images: Images, symmetry: int) -> Images:
    """One of the 8 symmetries of a square."""
    rotated = np.rot90(images, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(rotated[..., ::-1] if symmetry >= 4 else rotated)
