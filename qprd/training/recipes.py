"""The recipes: from labeled patches to a trained model.

``paper``: focal reverse distillation as published; validation patches choose the epoch.

``best``: teacher maps are standardized over the normal training patches; a smaller student learns
them with a hinge loss, flips and quarter turns and an annealed rate, to the last epoch; a logistic
regression on the pooled maps is fused with it, in the proportion that suits the validation patches
best (half and half without any). Without tumor patches it is plain reverse distillation on
standardized maps.

A training that continues from an earlier bundle starts bottleneck and student from its weights,
under either recipe; the optimizer starts afresh. ``best`` keeps the earlier standardization: in its
unit the student has learned the maps, and new statistics would make it start over. The classifier
and the fusion are fitted anew, on all patches of the new training: a logistic regression ends at
the same place wherever it starts. Without tumor patches there is nothing to fit them on, and they
stay.

``benchmarks/`` holds what this was chosen on, and against what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.model.anomaly import differences
from qprd.model.frd import FRD, FusedFRD
from qprd.model.head import LinearClassifier, fit_fusion, fit_linear
from qprd.model.inference import faster_teacher
from qprd.model.loss import build_loss
from qprd.model.teacher import STRIDES
from qprd.progress import Progress
from qprd.sampling.dataset import SYMMETRIES, PatchDataset, symmetric
from qprd.scoring.by_patch import score_patches
from qprd.settings import TrainConfig
from qprd.training.loop import TrainingOutcome, ValidationPatches, fit
from qprd.training.teacher_cache import TeacherCache

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Shares of the student in the score that validation patches choose from.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_EVEN = 0.5


def train_model(
    model: FRD,
    dataset: PatchDataset,
    images: NDArray[np.uint8],
    tumor: NDArray[np.bool_],
    *,
    val: ValidationPatches | None,
    config: TrainConfig,
    fabric: Fabric,
    progress: Progress,
    folder: Path | None = None,
    continued: bool = False,
) -> TrainingOutcome:
    """Train a model by the recipe of its configuration.

    Args:
        model: Of the same recipe, new or of an earlier bundle; trained in place. Its teacher
            becomes that of `qprd.model.inference.faster_teacher`.
        dataset: The training patches, augmented as the configuration says.
        images: The same patches as they are, (N, 3, P, P) uint8.
        tumor: (N,), their labels.
        val: Patches of other slides, or None.
        config: Settings.
        fabric: Device and precision.
        progress: Shows bars.
        folder: Where a large `TeacherCache` may put its files; None for in memory only.
        continued: The model is that of an earlier bundle of the same recipe.

    Returns:
        The outcome. Under ``best`` the rows of its history are those of the student alone.

    Raises:
        NoEpochFinishedError: Ctrl-C before the end of the first epoch.
        QprdError: the training diverged, or there are no normal patches.
    """
    loss = build_loss(
        n_tumor=int(tumor.sum()),
        n_normal=int((~tumor).sum()),
        alpha=config.alpha,
        gamma=config.gamma,
        similarity=config.similarity,
        labels=config.labels,
        recipe=config.recipe,
    )
    model.to(fabric.device)
    model.teacher = faster_teacher(model.teacher)
    cache = teacher_cache_for(model, dataset, config, fabric, folder)
    fitted = partial(fit, model, dataset, loss, val, config, fabric=fabric, progress=progress)
    if not isinstance(model, FusedFRD):
        return fitted(cache=cache)
    model.to(memory_format=torch.channels_last)
    patches = _Patches(model, images, config.batch_size, fabric, cache)
    if not continued:
        model.head.fit_standardization(patches.teacher_maps(np.flatnonzero(~tumor)))
    elif tumor.any():
        model.head.unfuse()
    outcome = fitted(cache=cache, annealed=True)
    if not tumor.any():
        return outcome
    with progress.task("linear classifier", SYMMETRIES * len(images)) as task:
        views = []
        for symmetry in range(SYMMETRIES):
            views.append(patches.pooled(symmetry))
            task.advance(len(images))
    classifier = fit_linear(views, tumor)
    decisions, differences = patches.parts(classifier)
    share = _EVEN
    if val is not None and val.has_both_classes:
        on_val = _Patches(model, val.images, config.batch_size, fabric).parts(classifier)
        share = choose_share(
            val.tumor, lambda share: fit_fusion(decisions, differences, tumor, share)(*on_val)
        )
    model.head.fuse(classifier, fit_fusion(decisions, differences, tumor, share))
    return _rescored(model, outcome, val, config, fabric)


def choose_share(
    y_true: NDArray[np.bool_], scores_of: Callable[[float], NDArray[np.float64]]
) -> float:
    """Choose the student's share with the best validation AUROC; of equal ones the most even.

    Args:
        y_true: (n,) labels, True for tumor, with both classes.
        scores_of: Gives the validation scores (n,) for a share.
    """
    return max(
        SHARES, key=lambda share: (auroc(y_true, scores_of(share)) or 0.0, -abs(share - _EVEN))
    )


def _rescored(
    model: FRD,
    outcome: TrainingOutcome,
    val: ValidationPatches | None,
    config: TrainConfig,
    fabric: Fabric,
) -> TrainingOutcome:
    """Return the outcome with the validation figures of the finished model."""
    if val is None:
        return outcome
    scores = score_patches(
        model, val.images, fabric=fabric, batch_size=config.batch_size, reduction=config.patch_score
    )
    best = outcome.best
    threshold = accuracy_threshold(val.tumor, scores)
    if threshold is not None:
        best = replace(best, val_accuracy=threshold.accuracy, val_auroc=auroc(val.tumor, scores))
    return replace(outcome, best=best, val_scores=scores)


def teacher_cache_for(
    model: FRD, dataset: PatchDataset, config: TrainConfig, fabric: Fabric, folder: Path | None
) -> TeacherCache | None:
    """Make a cache of the teacher's maps of a dataset; None where running it again is faster.

    Args:
        model: With the teacher that it is trained with.
        dataset: Its patches come in eight symmetries if it is augmented.
        config: Room, size of the patches.
        fabric: Device and precision.
        folder: Where files may go, or None.
    """
    if fabric.device.type != "cpu":
        return None

    def teacher(images: Tensor) -> list[Tensor]:
        with fabric.autocast():
            maps: list[Tensor] = model.teacher(images)
        return [f.float() for f in maps]

    return TeacherCache(
        teacher,
        [
            (channels, config.patch_px // stride, config.patch_px // stride)
            for channels, stride in zip(model.teacher.channels, STRIDES, strict=True)
        ],
        patches=len(dataset),
        symmetries=SYMMETRIES if dataset.augment else 1,
        budget_bytes=int(config.teacher_cache * 2**30),
        folder=folder,
    )


@dataclass(frozen=True)
class _Patches:
    """Patches with the maps that a fused model computes of them.

    Attributes:
        model: With its standardization fitted.
        images: (N, 3, P, P) uint8.
        batch_size: Patches a forward pass.
        fabric: Where to compute.
        cache: Of the teacher's maps of these patches, or None.
    """

    model: FusedFRD
    images: NDArray[np.uint8]
    batch_size: int
    fabric: Fabric
    cache: TeacherCache | None = None

    @torch.inference_mode()
    def teacher_maps(self, chosen: NDArray[np.int64]) -> Iterator[Sequence[Tensor]]:
        """Yield the teacher's raw maps of some patches, batch by batch."""
        for batch, known in self._batches(chosen, 0):
            yield self.model.teacher(batch) if known is None else known

    @torch.inference_mode()
    def pooled(self, symmetry: int) -> NDArray[np.float64]:
        """Return the average-pooled standardized maps of all patches, (N, C1 + C2 + C3)."""
        pooled = []
        for batch, known in self._batches(np.arange(len(self.images)), symmetry):
            with self.fabric.autocast():
                maps = self.model.teacher_maps(batch, known)
            pooled.append(_mean_of_locations(maps))
        return np.concatenate(pooled)

    @torch.inference_mode()
    def parts(self, classifier: LinearClassifier) -> tuple[NDArray[np.float64], ...]:
        """Return both parts of the fused scores: decisions and differences, (N,) each."""
        self.model.eval()
        decisions, distances = [], []
        for start in range(0, len(self.images), self.batch_size):
            patches = np.arange(start, min(start + self.batch_size, len(self.images)))
            batch = torch.from_numpy(np.ascontiguousarray(self.images[patches]))
            maps = self.model.mean_over_views(
                batch.to(self.fabric.device), partial(self._features_and_differences, patches)
            )
            decisions.append(classifier(_mean_of_locations(maps[:3])))
            distances.append(_mean_of_locations([d.unsqueeze(1) for d in maps[3:]]).sum(axis=1))
        return np.concatenate(decisions), np.concatenate(distances)

    def _features_and_differences(
        self, patches: NDArray[np.int64], view: Tensor, symmetry: int
    ) -> list[Tensor]:
        with self.fabric.autocast():
            teacher_maps, student_maps = self.model(view, self._known(view, patches, symmetry))
        return [f.float() for f in (*teacher_maps, *differences(teacher_maps, student_maps))]

    def _batches(
        self, chosen: NDArray[np.int64], symmetry: int
    ) -> Iterator[tuple[Tensor, Sequence[Tensor] | None]]:
        """Yield batches, each with the teacher's maps if they are cached."""
        turned = symmetric(self.images, symmetry)  # a view, so a memory map stays on disk
        for start in range(0, len(chosen), self.batch_size):
            patches = chosen[start : start + self.batch_size]
            batch = torch.from_numpy(np.ascontiguousarray(turned[patches])).to(self.fabric.device)
            yield batch, self._known(batch, patches, symmetry)

    def _known(
        self, view: Tensor, patches: NDArray[np.int64], symmetry: int
    ) -> Sequence[Tensor] | None:
        """Return the teacher's maps of a view of these patches, if they are cached."""
        if self.cache is None:
            return None
        return self.cache.maps(view, patches, np.full(len(patches), symmetry))


def _mean_of_locations(maps: Sequence[Tensor]) -> NDArray[np.float64]:
    """Average-pool maps (N, C, H, W) to (N, sum of C)."""
    return torch.cat([f.float().mean((2, 3)) for f in maps], 1).cpu().double().numpy()
