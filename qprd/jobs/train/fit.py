"""Reading the patches of a training, and fitting the model to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.files.atomic import write_errors
from qprd.jobs.train.patches import PreparedPatches
from qprd.jobs.train.run import Run
from qprd.progress import Progress
from qprd.sampling.dataset import (
    Opener,
    PatchDataset,
    SlideReadError,
    decode_all,
    open_decoded,
)
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.model.network import Network
    from qprd.training.loop import TrainingOutcome


@dataclass(frozen=True)
class DecodedPatches:
    """Patches with their pixels.

    Attributes:
        prepared: The patches.
        train: (n, 3, p, p) uint8, those of training.
        val: The same of validation.
    """

    prepared: PreparedPatches
    train: NDArray[np.uint8]
    val: NDArray[np.uint8]


def read_patches(
    prepared: PreparedPatches,
    without: Callable[[PreparedPatches, SlideReadError], PreparedPatches],
    config: TrainConfig,
    run: Run,
    progress: Progress,
) -> DecodedPatches:
    """Read the pixels of all patches of training and validation, or find them again.

    Args:
        prepared: The patches.
        without: Chooses the patches anew without a slide that turns out to be damaged.
        config: Settings.
        run: Keeps them in its folder.
        progress: Shows what takes long.

    Raises:
        QprdError: there are fewer than two training patches, too few slides can be read, or the
            disk is full.
    """
    known = run.table()
    files = [run.folder / split / "patches.npy" for split in ("train", "val")]
    while True:
        tables = [prepared.table.subset("train"), prepared.table.subset("val")]
        if len(tables[0]) < 2:
            raise QprdError(
                "Training needs at least two patches.",
                where="--normal",
                fix="Ask for more patches.",
            )
        if prepared.table == known and all(file.is_file() for file in files):
            return DecodedPatches(prepared, *map(open_decoded, files))
        try:
            images = _decoded(prepared.open, files, tables, config.patch_px, progress)
            return DecodedPatches(prepared, *images)
        except SlideReadError as error:
            prepared = without(prepared, error)


def fit_model(
    model: Network,
    patches: DecodedPatches,
    config: TrainConfig,
    run: Run,
    *,
    fabric: Fabric,
    progress: Progress,
    finish: bool = False,
) -> TrainingOutcome:
    """Train a model on patches.

    Args:
        model: Trained in place.
        patches: The patches of training and validation.
        config: Settings.
        run: Its folder has what the training goes on from, and gets what it can go on from.
        fabric: Device and precision.
        progress: Shows what takes long.
        finish: Train no more epochs than the run has.

    Raises:
        QprdError: the disk is full, or the training diverged.
    """
    from qprd.training.loop import ValidationPatches
    from qprd.training.recipes import train_model

    table = patches.prepared.table
    train, val = table.subset("train"), table.subset("val")
    dataset = PatchDataset(
        train,
        patches.train,
        patch_px=config.patch_px,
        labels=config.labels,
        regions={slide.entry_id: slide.regions for slide in patches.prepared.slides},
        augment=config.augment,
        seed=config.seed,
    )
    return train_model(
        model,
        dataset,
        patches.train,
        train.is_tumor,
        val=ValidationPatches(patches.val, val.is_tumor) if len(val) else None,
        config=config,
        fabric=fabric,
        progress=progress,
        folder=run.folder,
        finish=finish,
    )


def _decoded(
    opener: Opener,
    files: Sequence[Path],
    tables: Sequence[PatchTable],
    patch_px: int,
    progress: Progress,
) -> list[NDArray[np.uint8]]:
    """Read the patches of each table into its file: (N, 3, P, P)."""
    images = []
    with (
        progress.task("reading patches", sum(map(len, tables))) as task,
        write_errors("The cache of training patches", files[0].parent),
    ):
        for file, table in zip(files, tables, strict=True):
            file.parent.mkdir(exist_ok=True)
            images.append(
                decode_all(
                    table,
                    opener,
                    patch_px=patch_px,
                    folder=file.parent,
                    max_ram_bytes=0,
                    progress=lambda _done, _all: task.advance(),
                )
            )
            if not len(table):  # which has no file yet
                np.save(file, images[-1])
    return images
