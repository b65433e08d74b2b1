"""What each recipe does, from labelled patches to a trained model.

``paper``: focal reverse distillation as published; validation patches choose the epoch.

``best``: teacher maps are standardized over the normal training patches; a smaller student learns
them with a hinge loss, flips and quarter turns and an annealed rate, to the last epoch; a logistic
regression on the pooled maps is fused with it, in the proportion that suits the validation patches
best (half and half without any). Without tumor patches it is plain reverse distillation on
standardized maps. ``benchmarks/`` holds what this was chosen on, and against what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.config import TrainConfig
from qprd.evaluation.metrics import accuracy_threshold, auroc
from qprd.model.frd import FRD, FusedFRD
from qprd.model.head import LinearClassifier, fit_fusion, fit_linear
from qprd.model.loss import build_loss, map_similarity
from qprd.prediction import score_patches
from qprd.progress import Progress
from qprd.sampling.dataset import PatchDataset
from qprd.training import TrainingOutcome, ValidationPatches, fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Flips and quarter turns of a square: the views that the linear classifier is fitted on.
_SYMMETRIES = 8
#: The one that swaps x and y.
_TRANSPOSED = 7

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
) -> TrainingOutcome:
    """Train a model by the recipe of its configuration.

    Args:
        model: From `qprd.model.frd.build_frd` for the same recipe; trained in place.
        dataset: The training patches, augmented as the configuration says.
        images: The same patches as they are, (N, 3, P, P) uint8.
        tumor: (N,), their labels.
        val: Patches of other slides, or None.
        config: Settings.
        fabric: Device and precision.
        progress: Shows bars.

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
    if not isinstance(model, FusedFRD):
        return fit(model, dataset, loss, val, config, fabric=fabric, progress=progress)
    model.to(fabric.device)
    model.head.fit_standardization(
        model.teacher(batch)
        for batch in _batches(images, np.flatnonzero(~tumor), config.batch_size, fabric.device)
    )
    outcome = fit(
        model, dataset, loss, val, config, fabric=fabric, progress=progress, annealed=True
    )
    if not tumor.any():
        return outcome
    with progress.task("linear classifier", _SYMMETRIES * len(images)) as task:
        views = []
        for symmetry in range(_SYMMETRIES):
            views.append(_pooled(model, _view(images, symmetry), config.batch_size, fabric))
            task.advance(len(images))
    classifier = fit_linear(views, tumor)
    decisions, differences = _parts(model, classifier, images, config.batch_size, fabric)
    share = _EVEN
    if val is not None and val.has_both_classes:
        on_val = _parts(model, classifier, val.images, config.batch_size, fabric)
        share = choose_share(
            lambda share: fit_fusion(decisions, differences, tumor, share)(*on_val), val.tumor
        )
    model.head.fuse(classifier, fit_fusion(decisions, differences, tumor, share))
    return _rescored(model, outcome, val, config, fabric)


def choose_share(
    scores_of: Callable[[float], NDArray[np.float64]], tumor: NDArray[np.bool_]
) -> float:
    """The student's share with the best validation AUROC; among equals the most even one.

    Args:
        scores_of: Validation scores (n,) for a share.
        tumor: (n,), with both classes.
    """
    return max(
        SHARES, key=lambda share: (auroc(tumor, scores_of(share)) or 0.0, -abs(share - _EVEN))
    )


def _rescored(
    model: FRD,
    outcome: TrainingOutcome,
    val: ValidationPatches | None,
    config: TrainConfig,
    fabric: Fabric,
) -> TrainingOutcome:
    """The outcome with the validation figures of the finished model."""
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


@torch.inference_mode()
def _pooled(
    model: FusedFRD, images: NDArray[np.uint8], batch_size: int, fabric: Fabric
) -> NDArray[np.float64]:
    """Average-pooled standardized maps, (N, C1 + C2 + C3)."""
    pooled = []
    for batch in _batches(images, np.arange(len(images)), batch_size, fabric.device):
        with fabric.autocast():
            maps = model.teacher_maps(batch)
        pooled.append(_mean_of_locations(maps))
    return np.concatenate(pooled)


@torch.inference_mode()
def _parts(
    model: FusedFRD,
    classifier: LinearClassifier,
    images: NDArray[np.uint8],
    batch_size: int,
    fabric: Fabric,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the score of a patch is fused from: decisions and differences, (N,) each."""
    model.eval()
    views = []
    for symmetry in (0, _TRANSPOSED) if model.transposes else (0,):
        decisions, differences = [], []
        turned = _view(images, symmetry)
        for batch in _batches(turned, np.arange(len(images)), batch_size, fabric.device):
            with fabric.autocast():
                teacher_maps, student_maps = model(batch)
            distances = [
                1 - map_similarity(f, imitated, "location").unsqueeze(1)
                for f, imitated in zip(teacher_maps, student_maps, strict=True)
            ]
            decisions.append(classifier(_mean_of_locations(teacher_maps)))
            differences.append(_mean_of_locations(distances).sum(axis=1))
        views.append((np.concatenate(decisions), np.concatenate(differences)))
    means = np.mean(views, axis=0)
    return means[0], means[1]


def _mean_of_locations(maps: Sequence[Tensor]) -> NDArray[np.float64]:
    """Maps (N, C, H, W) as (N, sum of C)."""
    return torch.cat([f.float().mean((2, 3)) for f in maps], 1).cpu().double().numpy()


def _view(images: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """One of the 8 symmetries of a square; a view, so a memory map stays on disk."""
    rotated = np.rot90(images, symmetry % 4, axes=(-2, -1))
    return rotated[..., ::-1] if symmetry >= 4 else rotated


def _batches(
    images: NDArray[np.uint8], chosen: NDArray[np.int64], batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    for start in range(0, len(chosen), batch_size):
        batch = np.ascontiguousarray(images[chosen[start : start + batch_size]])
        yield torch.from_numpy(batch).to(device)
