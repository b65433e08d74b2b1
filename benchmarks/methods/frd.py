"""Focal reverse distillation and plain reverse distillation, by qprd itself.

``paper`` is the published method: focal similarity loss, the teacher's default epochs and rate,
the epoch of the best validation accuracy. Beyond the paper, flips and quarter turns are on unless
``--no-augment`` is given. ``best`` is what `qprd.training.recipes` says.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import teacher_of
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.given_settings import train_config
from qprd.model.assembly import build_network
from qprd.model.frd import StandardizedFRD
from qprd.model.loss import Loss
from qprd.model.network import Network
from qprd.progress import Progress, SilentProgress, TerminalProgress
from qprd.sampling.dataset import PatchDataset
from qprd.sampling.table import Patch, PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.settings import Recipe, TrainConfig
from qprd.training.history import ValidationPatches
from qprd.training.loop import fit
from qprd.training.recipes import model_of, teacher_cache_for, train_model


@dataclass(frozen=True)
class TrainStudent:
    """A student of ``--recipe best`` that is trained with tumor patches, too.

    Attributes:
        model: What it is.
        loss: What it minimizes.
    """

    model: type[StandardizedFRD]
    loss: Loss


class ReverseDistillation:
    """A recipe of qprd; plain reverse distillation without tumor patches or not ``focal``.

    Args:
        options: Teacher, epochs, rate, loss, augmentation.
        recipe: How the model is built and trained.
        focal: False leaves out the tumor patches.
        student: Train this, and not what the recipe trains.
    """

    def __init__(
        self,
        options: MethodOptions,
        recipe: Recipe,
        *,
        focal: bool,
        student: TrainStudent | None = None,
    ) -> None:
        self._student = student
        self._options = options
        self._recipe = recipe
        self._focal = focal
        fabric = make_fabric(options.device, "32")
        # On any CPU the same figures, whether it has bf16 units or not.
        is_cpu = fabric.device.type == "cpu"
        self._fabric = fabric if is_cpu else make_fabric(options.device, "auto")
        self._model: Network | None = None

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,
        val_tumor: Labels,
        *,
        seed: int,
    ) -> None:
        """See `methods.interface.Method`; under ``paper`` validation patches choose the epoch."""
        used = np.ones(len(train_tumor), bool) if self._focal else ~train_tumor
        images, tumor = train_images[used], train_tumor[used]
        if len(images) < 2:
            raise QprdError("Training needs at least two patches.", where="--normal")
        config = self._config(images.shape[-1], seed)
        if self._student is not None:
            self._model = self._trained_student(self._student, images, tumor, config)
            return
        model = model_of(self._recipe, int(tumor.sum()))
        self._model = build_network(model, teacher_of(self._options), seed)
        train_model(
            self._model,
            _dataset(images, tumor, config),
            images,
            tumor,
            val=ValidationPatches(val_images, val_tumor),
            config=config,
            fabric=self._fabric,
            progress=training_progress(),
        )

    def _trained_student(
        self, student: TrainStudent, images: Images, tumor: Labels, config: TrainConfig
    ) -> Network:
        """Train it as `qprd.training.recipes.train_model` does without tumor patches."""
        model = build_network(student.model, teacher_of(self._options), config.seed)
        model.to(self._fabric.device).to(memory_format=torch.channels_last)
        normal = torch.from_numpy(images[~tumor]).to(self._fabric.device)
        with torch.no_grad():
            model.head.fit_standardization(
                model.raw_maps(batch) for batch in normal.split(config.batch_size)
            )
        dataset = _dataset(images, tumor, config)
        fit(
            model,
            dataset,
            student.loss,
            None,
            config,
            fabric=self._fabric,
            progress=training_progress(),
            annealed=True,
            cache=teacher_cache_for(model, dataset, config, self._fabric, None),
        )
        return model

    def score(self, images: Images) -> Scores:
        """Mean of the smoothed score map; of ``paper`` 0..6."""
        if self._model is None:
            raise ValueError("not fitted")
        scores = score_patches(
            self._model, images, fabric=self._fabric, batch_size=self._options.batch_size
        )
        return scores.astype(np.float64)

    def _config(self, patch_px: int, seed: int) -> TrainConfig:
        options = self._options
        return train_config(
            {
                "recipe": self._recipe,
                "teacher": options.teacher,
                "weights": options.teacher_weights,
                "patch_px": patch_px,
                "epochs": options.epochs,
                "batch_size": options.batch_size,
                "lr": options.lr,
                "alpha": options.alpha,
                "gamma": options.gamma,
                "similarity": options.similarity,
                "augment": options.augment,
                "seed": seed,
                "device": options.device,
            }
        )


def training_progress() -> Progress:
    """Bars for whoever watches a terminal; silence in a log."""
    return TerminalProgress() if sys.stderr.isatty() else SilentProgress()


def _dataset(images: Images, tumor: Labels, config: TrainConfig) -> PatchDataset:
    """Decoded patches as qprd trains on them; they lie on no slide that anything would read."""
    patches = [
        Patch(
            slide="",
            name="",
            x=0,
            y=0,
            size_px=config.patch_px,
            mpp=config.mpp,
            label="tumor" if is_tumor else "normal",
            split="train",
        )
        for is_tumor in tumor.tolist()
    ]
    return PatchDataset(
        PatchTable(tuple(patches)),
        images,
        patch_px=config.patch_px,
        augment=config.augment,
        seed=config.seed,
    )
