"""The training loop: from labeled patches to the best epoch's weights."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim.lr_scheduler import OneCycleLR

from qprd.bundle.names import HISTORY_FILE
from qprd.errors import ExitCode, QprdError
from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.files.atomic import replacing, write_errors
from qprd.model.frd import FRD
from qprd.model.loss import Loss
from qprd.model.network import Network
from qprd.progress import Progress, Task
from qprd.sampling.dataset import PatchBatch, PatchDataset
from qprd.scoring.by_patch import score_patches
from qprd.settings import TrainConfig
from qprd.training.batches import TrainingBatches
from qprd.training.checkpoint import (
    Checkpoint,
    damaged_unless_whole,
    optimizer_parts,
    random_states,
    restore_optimizer,
    restore_random,
)
from qprd.training.teacher_cache import TeacherCache
from qprd.training.tracking import track_epoch

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import Precision

#: Share of the steps over which an annealed rate rises.
_WARM_UP = 0.1
#: Times an annealed training looks at the validation patches, which choose nothing in it.
_LOOKS = 5
#: Devices on which Adam updates all weights in one pass.
_FUSED = ("cpu", "cuda")


@dataclass(frozen=True)
class ValidationPatches:
    """Decoded patches that choose the epoch, the threshold and the calibration.

    Attributes:
        images: uint8, (N, 3, P, P), RGB; in memory or memory-mapped.
        tumor: bool, (N,).
    """

    images: NDArray[np.uint8]
    tumor: NDArray[np.bool_]

    @property
    def has_both_classes(self) -> bool:
        """Whether accuracy, threshold and calibration are defined."""
        return bool(self.tumor.any() and not self.tumor.all())


@dataclass(frozen=True)
class Epoch:
    """One row of ``history.csv``; validation figures are None where there was no validation."""

    epoch: int
    loss: float
    val_accuracy: float | None
    val_auroc: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of a training; the model holds the best epoch's weights.

    Attributes:
        history: A row for each finished epoch; none where the model has a closed form.
        best: The epoch whose weights were kept; None without epochs.
        diverged: Loss or scores were no longer finite, which ended it early.
        val_scores: Raw scores of the validation patches by the kept weights, (N,), or None.
        waited_s: Seconds for which the network waited for patches.
    """

    history: tuple[Epoch, ...]
    best: Epoch | None
    diverged: bool
    val_scores: NDArray[np.float32] | None
    waited_s: float = 0.0

    @classmethod
    def without_epochs(cls, val_scores: NDArray[np.float32] | None) -> TrainingOutcome:
        """The outcome of a closed form."""
        return cls((), None, diverged=False, val_scores=val_scores)


def fit(
    model: FRD,
    train: PatchDataset,
    loss: Loss,
    val: ValidationPatches | None,
    config: TrainConfig,
    *,
    fabric: Fabric,
    progress: Progress,
    annealed: bool = False,
    cache: TeacherCache | None = None,
    folder: Path | None = None,
    finish: bool = False,
) -> TrainingOutcome:
    """Train the bottleneck and the student; keep the epoch with the best validation accuracy.

    Adam with betas (0.5, 0.999) as published. Validation accuracy is that of the threshold which
    suits the validation patches best; equal accuracies are told apart by AUROC. Without
    validation patches of both classes the last epoch is kept.

    Annealed, the rate rises over a tenth of the steps and falls to nothing along a cosine (Smith &
    Topin 2019), and the last epoch is kept: validation patches choose nothing, and are looked at
    after five of the epochs only.

    Args:
        model: Trained in place.
        train: At least two patches.
        loss: Of teacher maps, student maps and labels.
        val: From other slides than ``train``, or None.
        config: Epochs, batch size, rate, seed.
        fabric: Device and precision.
        progress: Shows one bar.
        annealed: Anneal the rate, and keep the last epoch.
        cache: Keeps the teacher's maps of ``train``; None runs the teacher each time.
        folder: Gets a `Checkpoint` and ``history.csv`` after each epoch; if it has a checkpoint,
            the training goes on from there. None keeps nothing.
        finish: Train no more epochs than the checkpoint has.

    Raises:
        QprdError: The training diverged, or the checkpoint is damaged or cannot be written.
    """
    batches = TrainingBatches(
        train, batch_size=config.batch_size, seed=config.seed, device=fabric.device
    )
    steps = config.epochs * len(batches)
    learner = _learner(model, config, fabric, cache, steps if annealed else None)
    history: list[Epoch] = []
    best: _Kept | None = None
    if (found := Checkpoint.load(folder)) is not None:
        with damaged_unless_whole(cast("Path", folder)):
            history, best = _restore(found, model, learner, batches)
    diverged = False
    with progress.task("training", steps) as task:
        if cache is not None:
            task.note(str(cache))
        if history:
            task.advance(len(history) * len(batches))
        for number in range(len(history) + 1, 1 + (0 if finish else config.epochs)):
            started = time.perf_counter()
            scores = None
            try:
                mean_loss = _epoch(batches.epoch(number), loss, learner, fabric, task)
                _check_finite(number, mean_loss)
                looked_at = not annealed or _is_looked_at(number, config.epochs)
                if val is not None and looked_at:
                    scores = score_validation(model, val, config, fabric)
            except QprdError:
                if best is None:
                    raise
                diverged = True  # the epochs before are worth keeping
                break
            row = _row(number, mean_loss, scores, val, time.perf_counter() - started)
            history.append(row)
            if best is None or annealed or _is_better(row, best.epoch):
                best = _Kept(row, _copy(model.trainable_state()), scores)
            if folder is not None:
                _checkpoint(model, learner, batches, history, best).save(folder)
                with write_errors("The history", folder):
                    save_history(history, folder / HISTORY_FILE)
            task.note(_note(row))
            rate = float(learner.adam.param_groups[0]["lr"])
            track_epoch(row, rate=rate, config=config, model=model, val=val, fabric=fabric)
    if best is None:
        raise QprdError(
            "No epoch of this training is finished.",
            where="--finish",
            fix="Resume it without --finish.",
            exit_code=ExitCode.USAGE,
        )
    model.load_trainable_state(best.state)
    kept, val_scores = best.epoch, best.val_scores
    if val_scores is None and val is not None:  # an annealed one was finished between two looks
        val_scores = score_validation(model, val, config, fabric)
        kept = _row(kept.epoch, kept.loss, val_scores, val, kept.seconds)
    return TrainingOutcome(tuple(history), kept, diverged, val_scores, batches.waited_s)


@dataclass(frozen=True)
class _Learner:
    """The parts that a training step needs, set up on its device.

    Attributes:
        module: The network as Fabric runs it.
        adam: The optimizer, whose state is saved.
        optimizer: The same as Fabric steps it.
        schedule: Of the rate, if it is annealed.
        cache: Of the teacher's maps.
        precision: Scales the loss where 16 bits need it.
    """

    module: nn.Module
    adam: torch.optim.Optimizer
    optimizer: torch.optim.Optimizer
    schedule: OneCycleLR | None
    cache: TeacherCache | None
    precision: Precision


def _learner(
    model: FRD,
    config: TrainConfig,
    fabric: Fabric,
    cache: TeacherCache | None,
    annealed_steps: int | None,
) -> _Learner:
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        model.trainable_parameters(),
        lr=config.lr,
        betas=(0.5, 0.999),
        fused=fabric.device.type in _FUSED,
    )
    network = cast("nn.Module", torch.compile(model)) if config.compile else model
    module, wrapped = fabric.setup(network, optimizer)
    schedule = None
    if annealed_steps is not None:
        schedule = OneCycleLR(
            optimizer,
            config.lr,
            total_steps=annealed_steps,
            # PyTorch divides by zero where the rate rises for one step.
            pct_start=_WARM_UP if annealed_steps * _WARM_UP != 1 else 2 * _WARM_UP,
            cycle_momentum=False,
        )
    return _Learner(module, optimizer, wrapped, schedule, cache, fabric.strategy.precision)


def _epoch(
    batches: Iterable[PatchBatch],
    loss: Loss,
    learner: _Learner,
    fabric: Fabric,
    task: Task,
) -> float:
    """Learn from every batch once, and return the mean loss; wait for the device at the end."""
    learner.module.train()
    losses: list[torch.Tensor] = []
    for batch in batches:
        known = None
        if learner.cache is not None:
            known = learner.cache.maps(batch.images, batch.patches, batch.symmetries)
        try:
            teacher_maps, student_maps = learner.module(batch.images, known)
        except TorchDynamoException as error:
            raise QprdError(
                f"PyTorch cannot compile the network: {str(error).splitlines()[0]}",
                where="--compile",
                fix="Train without it, or install a C++ compiler.",
                exit_code=ExitCode.FAILED,
            ) from error
        value = loss(teacher_maps, student_maps, batch.target)
        learner.optimizer.zero_grad(set_to_none=True)
        fabric.backward(value)
        learner.optimizer.step()
        if learner.schedule is not None:
            learner.schedule.step()
        losses.append(value.detach())
        task.advance()
    return float(torch.stack(losses).mean())


def _is_looked_at(epoch: int, epochs: int) -> bool:
    """Whether an annealed training validates after this epoch: evenly, and after the last one."""
    return epoch * _LOOKS // epochs > (epoch - 1) * _LOOKS // epochs


@dataclass(frozen=True)
class _Kept:
    epoch: Epoch
    state: dict[str, torch.Tensor]
    val_scores: NDArray[np.float32] | None


def _checkpoint(
    model: FRD,
    learner: _Learner,
    batches: TrainingBatches,
    history: Sequence[Epoch],
    best: _Kept,
) -> Checkpoint:
    """All that the next epoch depends on."""
    moments, rest = optimizer_parts(learner.adam, learner.schedule)
    tensors = {
        "model": model.trainable_state(),
        "optimizer": moments,
        "random": random_states(batches.generator),
    }
    if best.epoch.epoch != history[-1].epoch:
        tensors["best"] = best.state
    if best.val_scores is not None:
        tensors["validation"] = {"scores": torch.from_numpy(best.val_scores)}
    if learner.cache is not None:
        tensors["cache"] = {"slots": learner.cache.state()}
    record = {
        "history": [asdict(row) for row in history],
        "best": asdict(best.epoch),
        "optimizer": rest,
        "precision": learner.precision.state_dict(),
    }
    return Checkpoint(tensors, record)


def _restore(
    found: Checkpoint, model: FRD, learner: _Learner, batches: TrainingBatches
) -> tuple[list[Epoch], _Kept]:
    """Set all that a checkpoint holds; return the rows so far, and what is kept of them."""
    record = found.record
    model.load_trainable_state(found.part("model"))
    restore_optimizer(learner.adam, learner.schedule, found.part("optimizer"), record["optimizer"])
    restore_random(found.part("random"), batches.generator)
    learner.precision.load_state_dict(record["precision"])
    if learner.cache is not None and "cache" in found.tensors:
        learner.cache.restore(found.part("cache")["slots"])
    scores = found.part("validation").get("scores")
    kept = _Kept(
        Epoch(**record["best"]),
        found.part("best") or found.part("model"),
        None if scores is None else scores.numpy(),
    )
    return [Epoch(**row) for row in record["history"]], kept


def save_history(history: Sequence[Epoch], path: Path) -> None:
    """Write a CSV file with a line for each epoch, whole or not at all."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)


def score_validation(
    model: Network, val: ValidationPatches, config: TrainConfig, fabric: Fabric
) -> NDArray[np.float32]:
    """Score validation patches, patch by patch: (N,) raw scores."""
    return score_patches(
        model,
        val.images,
        fabric=fabric,
        batch_size=config.batch_size,
        reduction=config.patch_score,
    )


def _check_finite(number: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise QprdError(
            f"The training diverged: the loss is not finite in epoch {number}.",
            where="--lr",
            fix="Train with a lower --lr.",
            exit_code=ExitCode.FAILED,
        )


def _row(
    number: int,
    loss: float,
    scores: NDArray[np.float32] | None,
    val: ValidationPatches | None,
    seconds: float,
) -> Epoch:
    if scores is None or val is None or not val.has_both_classes:
        return Epoch(number, loss, None, None, seconds)
    threshold = accuracy_threshold(val.tumor, scores)
    accuracy = None if threshold is None else threshold.accuracy
    return Epoch(number, loss, accuracy, auroc(val.tumor, scores), seconds)


def _is_better(row: Epoch, kept: Epoch) -> bool:
    if row.val_accuracy is None or kept.val_accuracy is None:
        return True
    return (row.val_accuracy, row.val_auroc or 0.0) > (kept.val_accuracy, kept.val_auroc or 0.0)


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _note(row: Epoch) -> str:
    text = f"loss {row.loss:.4f}"
    if row.val_accuracy is not None and row.val_auroc is not None:
        text += f"  val accuracy {row.val_accuracy:.3f}  AUROC {row.val_auroc:.3f}"
    return text
