"""Reading the patches of a training, and fitting the model to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qprd.errors import QprdError
from qprd.files.atomic import write_errors
from qprd.jobs.train.patches import PreparedPatches
from qprd.jobs.train.run import Run
from qprd.progress import Progress
from qprd.sampling.dataset import (
    PatchDataset,
    SlideReadError,
    decode_all,
    open_decoded,
    rasterize_labels,
)
from qprd.sampling.regions import LabelRegions
from qprd.sampling.splits import Split
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.model.network import Network
    from qprd.training.loop import TrainingOutcome

_READ: tuple[Split, ...] = ("train", "val")


def read_patches(
    prepared: PreparedPatches,
    without: Callable[[PreparedPatches, SlideReadError], PreparedPatches],
    config: TrainConfig,
    run: Run,
    progress: Progress,
) -> PreparedPatches:
    """Read the pixels of all patches of training and validation into files of a run.

    If the run has them they are not read again. ``without`` chooses the patches anew without a
    slide that turns out to be damaged.

    Returns:
        The patches that were read.

    Raises:
        QprdError: there are fewer than two training patches, too few slides can be read, or the
            disk is full.
    """
    known = run.table()
    while len(prepared.table.subset("train")) >= 2:
        if prepared.table == known and all(_pixels(run, split).is_file() for split in _READ):
            return prepared
        try:
            _read(prepared, config, run, progress)
            return prepared
        except SlideReadError as error:
            prepared = without(prepared, error)
    raise QprdError(
        "Training needs at least two patches.", where="--normal", fix="Ask for more patches."
    )


def fit_model(
    model: Network,
    table: PatchTable,
    config: TrainConfig,
    run: Run,
    *,
    fabric: Fabric,
    progress: Progress,
    finish: bool = False,
) -> TrainingOutcome:
    """Train a model in place on patches that were read, and keep checkpoints of it in the run.

    If the run holds a checkpoint the training goes on from there, or with ``finish`` ends there.

    Raises:
        QprdError: the disk is full, or the training diverged.
    """
    from qprd.training.history import ValidationPatches
    from qprd.training.recipes import train_model

    train, val = table.subset("train"), table.subset("val")
    images = open_decoded(_pixels(run, "train"))
    held_out = None
    if len(val) and fabric.is_global_zero:
        held_out = ValidationPatches(open_decoded(_pixels(run, "val")), val.is_tumor)
    dataset = PatchDataset(
        train,
        images,
        patch_px=config.patch_px,
        masks=np.load(_masks(run)) if config.labels == "mask" else None,
        augment=config.augment,
        seed=config.seed,
    )
    return train_model(
        model,
        dataset,
        images,
        train.is_tumor,
        val=held_out,
        config=config,
        fabric=fabric,
        progress=progress,
        folder=run.folder,
        finish=finish,
    )


def _pixels(run: Run, split: Split) -> Path:
    return run.folder / split / "patches.npy"


def _masks(run: Run) -> Path:
    return run.folder / "train" / "masks.npy"


def _read(prepared: PreparedPatches, config: TrainConfig, run: Run, progress: Progress) -> None:
    """Write the images of the patches of each split, (N, 3, P, P), and the masks if there are."""
    tables = {split: prepared.table.subset(split) for split in _READ}
    with (
        progress.task("reading patches", sum(map(len, tables.values())), "patch") as task,
        write_errors("The cache of training patches", run.folder),
    ):
        for split, table in tables.items():
            file = _pixels(run, split)
            file.parent.mkdir(exist_ok=True)
            images = decode_all(
                table,
                prepared.open,
                patch_px=config.patch_px,
                folder=file.parent,
                max_ram_bytes=0,
                progress=lambda _done, _all: task.advance(),
            )
            if not len(table):  # which has no file yet
                np.save(file, images)
        if config.labels == "mask":
            slides = {slide.entry_id: slide for slide in prepared.slides}

            def regions(entry_id: str) -> LabelRegions | None:
                return slides[entry_id].regions if entry_id in slides else None

            masks = rasterize_labels(tables["train"], regions, patch_px=config.patch_px)
            np.save(_masks(run), masks)
