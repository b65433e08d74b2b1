"""The recipes: from labeled patches to a trained model.

``paper``: focal reverse distillation as published; validation patches choose the epoch.

``best``: a discriminant of the teacher's maps, in closed form: there are no epochs, and validation
patches choose nothing of the model. Another head (``--head``) may take its place. Without tumor
patches there is nothing to tell apart, so that a small student learns the maps of normal tissue,
standardized over it, with flips and quarter turns and an annealed rate, to the last epoch.

A training that continues from an earlier bundle starts from its weights under ``paper``; the
optimizer starts afresh. ``best`` is fitted anew to all patches: a closed form has no start.

``benchmarks/`` holds what this was chosen on, and against what.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.errors import ExitCode, QprdError
from qprd.model.discriminant import Discriminant, moments
from qprd.model.frd import FRD, StandardizedFRD
from qprd.model.inference import faster_teacher
from qprd.model.loss import build_loss
from qprd.model.network import Network
from qprd.model.processes import gathered, take_from_first
from qprd.model.registry import head_named, loss_named
from qprd.progress import Progress
from qprd.sampling.dataset import SYMMETRIES, PatchDataset, symmetric
from qprd.sampling.stain import restained
from qprd.settings import Recipe, TrainConfig
from qprd.training.checkpoint import Checkpoint, damaged_unless_whole, has_checkpoint
from qprd.training.history import ValidationPatches
from qprd.training.loop import TrainingOutcome, fit, score_validation
from qprd.training.teacher_cache import TeacherCache
from qprd.training.tracking import track_fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def model_of(recipe: Recipe, n_tumor: int) -> type[Network]:
    """Choose the model that a recipe trains on so many tumor patches."""
    if recipe == "paper":
        return FRD
    return Discriminant if n_tumor else StandardizedFRD


def train_model(
    model: Network,
    dataset: PatchDataset,
    images: NDArray[np.uint8],
    tumor: NDArray[np.bool_],
    *,
    val: ValidationPatches | None,
    config: TrainConfig,
    fabric: Fabric,
    progress: Progress,
    folder: Path | None = None,
    finish: bool = False,
) -> TrainingOutcome:
    """Train a model by the recipe of its configuration.

    Args:
        model: As `model_of` chooses it, new or of an earlier bundle; trained in place. Its teacher
            becomes that of `qprd.model.inference.faster_teacher`.
        dataset: The training patches, augmented as the configuration says.
        images: The same patches as they are, (N, 3, P, P) uint8.
        tumor: (N,), their labels.
        val: Patches of other slides, or None.
        config: Settings.
        fabric: Device and precision; launched, if several processes compute together.
        progress: Shows bars.
        folder: Where a `TeacherCache` and a `Checkpoint` have their files; a training whose folder
            has a checkpoint goes on from there. None keeps nothing.
        finish: Train no more than the checkpoint has.

    Returns:
        The outcome; that of a discriminant has no epochs.

    Raises:
        QprdError: the training diverged, there are no normal patches, the patches of the two
            classes are the same, or the checkpoint is damaged or cannot be written.
    """
    model.to(fabric.device)
    model.teacher = faster_teacher(model.teacher)
    if isinstance(model, Discriminant):
        if (found := Checkpoint.load(folder)) is not None:
            with damaged_unless_whole(cast("Path", folder)):
                model.load_trainable_state(found.part("model"))
        else:
            _fit_discriminant(model, images, tumor, config, fabric=fabric, progress=progress)
            if folder is not None and fabric.is_global_zero:
                Checkpoint({"model": model.trainable_state()}, {}).save(folder)
        scores = None if val is None else score_validation(model, val, config, fabric)
        track_fit(model, val, scores, fabric)
        return TrainingOutcome.without_epochs(scores)
    assert isinstance(model, FRD)
    loss = loss_named(config.loss) or build_loss(
        config, n_tumor=int(tumor.sum()), n_normal=int((~tumor).sum())
    )
    cache = teacher_cache_for(model, dataset, config, fabric, folder)
    if isinstance(model, StandardizedFRD):
        model.to(memory_format=torch.channels_last)
        is_known = folder is not None and has_checkpoint(folder)
        if fabric.is_global_zero and not is_known:
            normal = (
                (patches, _pixels(images, patches, fabric))
                for patches in _blocks(np.flatnonzero(~tumor), config.batch_size)
            )
            model.head.fit_standardization(
                cache.maps(batch, patches, np.zeros_like(patches))
                if cache
                else model.raw_maps(batch)
                for patches, batch in normal
            )
        take_from_first(model.head)
    return fit(
        model,
        dataset,
        loss,
        val,
        config,
        fabric=fabric,
        progress=progress,
        annealed=isinstance(model, StandardizedFRD),
        cache=cache,
        folder=folder,
        finish=finish,
    )


@torch.inference_mode()
def _fit_discriminant(
    model: Discriminant,
    images: NDArray[np.uint8],
    tumor: NDArray[np.bool_],
    config: TrainConfig,
    *,
    fabric: Fabric,
    progress: Progress,
) -> None:
    """Fit a discriminant to patches in all their symmetries, each in another stain.

    Without augmentation it is fitted to the patches as they are. Features reach the head batch by
    batch. Where several processes compute together, each takes its batches, and the first one has
    the head.

    Raises:
        QprdError: the patches of the two classes are the same.
    """
    model.to(memory_format=torch.channels_last)
    head = head_named(config.head)()
    symmetries = range(SYMMETRIES if config.augment else 1)
    with progress.task("training", len(symmetries) * len(images), "patch") as task:
        for symmetry in symmetries:
            turned = symmetric(images, symmetry)  # a view, so a memory map stays on disk
            for patches in _blocks(np.arange(len(images)), config.batch_size * fabric.world_size):
                own = patches[fabric.global_rank * config.batch_size :][: config.batch_size]
                features = None
                if len(own):
                    batch = _pixels(turned, own, fabric, stained=config.augment)
                    with fabric.autocast():
                        features = moments(model.score_parts(batch))
                features = gathered(features)
                if fabric.is_global_zero:
                    head.add(features, tumor[patches])
                task.advance(len(patches))
    if not fabric.is_global_zero:
        return
    try:
        model.head.set(head.classifier())
    except ValueError as error:
        raise QprdError(
            "The tumor patches cannot be told from the normal ones: their features have the same "
            "mean.",
            fix="Check the classes of the annotations.",
            exit_code=ExitCode.FAILED,
        ) from error


def _blocks(patches: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of patches in their order, so many at a time."""
    return (patches[start : start + size] for start in range(0, len(patches), size))


def _pixels(
    images: NDArray[np.uint8], patches: NDArray[np.int64], fabric: Fabric, *, stained: bool = False
) -> Tensor:
    """The chosen patches on the device, as they are or restained."""
    chosen = restained(images[patches]) if stained else np.ascontiguousarray(images[patches])
    return torch.from_numpy(chosen).to(fabric.device)


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
    if fabric.world_size > 1:
        folder = None  # each process keeps its own maps

    def teacher(images: Tensor) -> list[Tensor]:
        with fabric.autocast():
            maps = model.raw_maps(images)
        return [f.float() for f in maps]

    return TeacherCache(
        teacher,
        [
            (channels, -(-config.patch_px // stride), -(-config.patch_px // stride))
            for channels, stride in zip(model.channels, model.strides, strict=True)
        ],
        patches=len(dataset),
        symmetries=SYMMETRIES if dataset.augment else 1,
        budget_bytes=int(config.teacher_cache * 2**30 / fabric.world_size),
        folder=folder,
    )
