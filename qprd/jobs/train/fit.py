"""Reading the patches of a training, and fitting the model to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.jobs.train.parent import StartingPoint
from qprd.jobs.train.patches import PreparedPatches
from qprd.jobs.train.records import patch_cache, writing_cache
from qprd.progress import Progress
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.training.loop import TrainingOutcome


def fit_model(
    start: StartingPoint,
    prepared: PreparedPatches,
    config: TrainConfig,
    folder: Path,
    *,
    fabric: Fabric,
    progress: Progress,
) -> TrainingOutcome:
    """Train a model on the prepared patches.

    Args:
        start: Its model is trained in place.
        prepared: The patches of training and validation.
        config: Settings.
        folder: Where decoded patches are kept meanwhile.
        fabric: Device and precision.
        progress: Shows what takes long.

    Raises:
        QprdError: there are fewer than two training patches, a slide cannot be read, the disk is
            full, or the training diverged.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
    """
    from qprd.sampling.dataset import PatchDataset
    from qprd.training.loop import ValidationPatches
    from qprd.training.recipes import train_model

    train, val = prepared.table.subset("train"), prepared.table.subset("val")
    if len(train) < 2:
        raise QprdError(
            "Training needs at least two patches.", where="--normal", fix="Ask for more patches."
        )
    with patch_cache(folder) as cache:
        train_images, val_images = _decoded(prepared, [train, val], config, cache, progress)
        dataset = PatchDataset(
            train,
            train_images,
            patch_px=config.patch_px,
            labels=config.labels,
            regions={slide.entry_id: slide.regions for slide in prepared.slides},
            augment=config.augment,
            seed=config.seed,
        )
        return train_model(
            start.model,
            dataset,
            train_images,
            train.is_tumor,
            val=ValidationPatches(val_images, val.is_tumor) if len(val) else None,
            config=config,
            fabric=fabric,
            progress=progress,
            folder=cache,
            continued=start.parent is not None,
        )


def _decoded(
    prepared: PreparedPatches,
    tables: list[PatchTable],
    config: TrainConfig,
    cache: Path,
    progress: Progress,
) -> list[NDArray[np.uint8]]:
    """The images of the patches of each table, (N, 3, P, P)."""
    from qprd.sampling.dataset import decode_all

    images = []
    with progress.task("reading patches", sum(map(len, tables))) as task, writing_cache(cache):
        for number, table in enumerate(tables):
            folder = cache / str(number)
            folder.mkdir()
            images.append(
                decode_all(
                    table,
                    prepared.open,
                    patch_px=config.patch_px,
                    folder=folder,
                    progress=lambda _done, _all: task.advance(),
                )
            )
    return images
