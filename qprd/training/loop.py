"""The training loop: from labeled patches to the best epoch's weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.bundle.names import HISTORY_FILE
from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import write_errors
from qprd.model.frd import FRD
from qprd.model.loss import Loss
from qprd.model.network import Network
from qprd.model.processes import joint_batch_norm
from qprd.progress import Progress, Task
from qprd.sampling.dataset import PatchDataset
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
from qprd.training.history import (
    Epoch,
    Kept,
    ValidationPatches,
    is_better,
    note_of,
    row_of,
    save_history,
)
from qprd.training.learner import Learner, build_learner, learn_epoch
from qprd.training.teacher_cache import TeacherCache
from qprd.training.tracking import track_epoch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Times an annealed training looks at the validation patches, which choose nothing in it.
_LOOKS = 5


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

    Where several processes train together, each has its part of every batch, and the first one
    validates and keeps what is to be kept; the others have an outcome without it.

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
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        device=fabric.device,
        part=(fabric.global_rank, fabric.world_size),
    )
    steps = config.epochs * len(batches)
    learner = build_learner(model, config, fabric, cache, steps if annealed else None)
    training = _Training(model, learner, batches, val, annealed=annealed, folder=folder)
    with progress.task("training", steps, "step") as task, joint_batch_norm(model):
        if cache is not None:
            task.note(str(cache))
        training.restore(task)
        epochs = 0 if finish else config.epochs
        while len(training.history) < epochs and not training.diverged:
            training.epoch(loss, config, fabric, task)
    return training.outcome(config, fabric)


class _Training:
    """A training between two epochs.

    Attributes:
        history: A row for each finished epoch.
        diverged: Whether the loss or the scores are no longer finite.
    """

    def __init__(
        self,
        model: FRD,
        learner: Learner,
        batches: TrainingBatches,
        val: ValidationPatches | None,
        *,
        annealed: bool,
        folder: Path | None,
    ) -> None:
        self.history: list[Epoch] = []
        self.diverged = False
        self._best: Kept | None = None
        self._model = model
        self._learner = learner
        self._batches = batches
        self._val = val
        self._annealed = annealed
        self._folder = folder

    def epoch(self, loss: Loss, config: TrainConfig, fabric: Fabric, task: Task) -> None:
        """Train for an epoch, and keep what is to be kept.

        Raises:
            QprdError: it diverged, and no epoch was finished before; or the disk is full.
        """
        started, number = time.perf_counter(), len(self.history) + 1
        mean_loss, scores = math.nan, None
        try:
            mean_loss = learn_epoch(self._batches.epoch(number), loss, self._learner, fabric, task)
            _check_finite(number, mean_loss)
            looked_at = not self._annealed or _is_looked_at(number, config.epochs)
            if self._val is not None and looked_at:
                scores = score_validation(self._model, self._val, config, fabric)
        except QprdError:
            if self._best is None and fabric.is_global_zero:
                raise
            self.diverged = True  # the epochs before are worth keeping
        self.diverged = fabric.broadcast(self.diverged)
        if self.diverged:
            return
        row = row_of(number, mean_loss, scores, self._val, time.perf_counter() - started)
        self.history.append(row)
        if fabric.is_global_zero:
            self._keep(row, scores)
            task.note(note_of(row))
            rate = float(self._learner.adam.param_groups[0]["lr"])
            track_epoch(
                row, rate=rate, config=config, model=self._model, val=self._val, fabric=fabric
            )

    def _keep(self, row: Epoch, scores: NDArray[np.float32] | None) -> None:
        if self._best is None or self._annealed or is_better(row, self._best.epoch):
            self._best = Kept(row, _copy(self._model.trainable_state()), scores)
        if self._folder is not None:
            self._checkpoint(self._best).save(self._folder)
            with write_errors("The history", self._folder):
                save_history(self.history, self._folder / HISTORY_FILE)

    def _checkpoint(self, best: Kept) -> Checkpoint:
        """All that the next epoch depends on."""
        learner = self._learner
        moments, rest = optimizer_parts(learner.adam, learner.schedule)
        tensors = {
            "model": self._model.trainable_state(),
            "optimizer": moments,
            "random": random_states(self._batches.generator),
        }
        if best.epoch != self.history[-1]:
            tensors["best"] = best.state
        if best.val_scores is not None:
            tensors["validation"] = {"scores": torch.from_numpy(best.val_scores)}
        if learner.cache is not None and learner.cache.in_files:
            tensors["cache"] = {"slots": learner.cache.state()}
        record = {
            "history": [asdict(row) for row in self.history],
            "best": asdict(best.epoch),
            "optimizer": rest,
            "precision": learner.precision.state_dict(),
        }
        return Checkpoint(tensors, record)

    def restore(self, task: Task) -> None:
        """Go on from the checkpoint in the folder, if there is one.

        Raises:
            QprdError: it is damaged.
        """
        found, learner = Checkpoint.load(self._folder), self._learner
        if found is None or self._folder is None:
            return
        record = found.record
        with damaged_unless_whole(self._folder):
            self._model.load_trainable_state(found.part("model"))
            restore_optimizer(
                learner.adam, learner.schedule, found.part("optimizer"), record["optimizer"]
            )
            restore_random(found.part("random"), self._batches.generator)
            learner.precision.load_state_dict(record["precision"])
            if learner.cache is not None and learner.cache.in_files and "cache" in found.tensors:
                learner.cache.restore(found.part("cache")["slots"])
            scores = found.part("validation").get("scores")
            self.history = [Epoch(**row) for row in record["history"]]
            self._best = Kept(
                Epoch(**record["best"]),
                found.part("best") or found.part("model"),
                None if scores is None else scores.numpy(),
            )
        task.advance(len(self.history) * len(self._batches))

    def outcome(self, config: TrainConfig, fabric: Fabric) -> TrainingOutcome:
        """Load the weights that are kept; in other processes than the first nothing is.

        Raises:
            QprdError: there are none.
        """
        history, waited_s = tuple(self.history), self._batches.waited_s
        if not fabric.is_global_zero:
            return TrainingOutcome(history, None, self.diverged, None, waited_s)
        if self._best is None:
            raise QprdError(
                "No epoch of this training is finished.",
                where="--finish",
                fix="Resume it without --finish.",
                exit_code=ExitCode.USAGE,
            )
        self._model.load_trainable_state(self._best.state)
        best, scores = self._best.epoch, self._best.val_scores
        if scores is None and self._val is not None:  # an annealed one, between two looks
            scores = score_validation(self._model, self._val, config, fabric)
            best = row_of(best.epoch, best.loss, scores, self._val, best.seconds)
        return TrainingOutcome(history, best, self.diverged, scores, waited_s)


def _is_looked_at(epoch: int, epochs: int) -> bool:
    """Whether an annealed training validates after this epoch: evenly, and after the last one."""
    return epoch * _LOOKS // epochs > (epoch - 1) * _LOOKS // epochs


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


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
