"""Reading the patches of a training, and fitting the model to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.jobs.train.patches import PreparedPatches
from qprd.jobs.train.records import writing_cache
from qprd.progress import Progress
from qprd.sampling.dataset import PatchDataset, SlideReadError, decode_all
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
    folder: Path,
    progress: Progress,
) -> DecodedPatches:
    """Read the pixels of all patches of training and validation.

    Args:
        prepared: The patches.
        without: Chooses the patches anew without a slide that turns out to be damaged.
        config: Settings.
        folder: Where they are kept if they take much memory.
        progress: Shows what takes long.

    Raises:
        QprdError: there are fewer than two training patches, too few slides can be read, or the
            disk is full.
    """
    while True:
        tables = [prepared.table.subset("train"), prepared.table.subset("val")]
        if len(tables[0]) < 2:
            raise QprdError(
                "Training needs at least two patches.",
                where="--normal",
                fix="Ask for more patches.",
            )
        try:
            return DecodedPatches(prepared, *_decoded(prepared, tables, config, folder, progress))
        except SlideReadError as error:
            prepared = without(prepared, error)


def fit_model(
    model: Network,
    patches: DecodedPatches,
    config: TrainConfig,
    folder: Path,
    *,
    fabric: Fabric,
    progress: Progress,
) -> TrainingOutcome:
    """Train a model on patches.

    Args:
        model: Trained in place.
        patches: The patches of training and validation.
        config: Settings.
        folder: Where what is computed once is kept meanwhile.
        fabric: Device and precision.
        progress: Shows what takes long.

    Raises:
        QprdError: the disk is full, or the training diverged.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
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
        folder=folder,
    )


def _decoded(
    prepared: PreparedPatches,
    tables: list[PatchTable],
    config: TrainConfig,
    cache: Path,
    progress: Progress,
) -> list[NDArray[np.uint8]]:
    """The images of the patches of each table, (N, 3, P, P)."""
    images = []
    with progress.task("reading patches", sum(map(len, tables))) as task, writing_cache(cache):
        for number, table in enumerate(tables):
            folder = cache / str(number)
            folder.mkdir(exist_ok=True)
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
