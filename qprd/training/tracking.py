"""Curves of a training for TensorBoard, and pictures of validation patches with their maps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.errors import ExitCode, QprdError
from qprd.evaluation.metrics import auroc
from qprd.events import emit
from qprd.files.atomic import write_errors
from qprd.model.anomaly import smooth
from qprd.model.network import Network
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.training.history import Epoch, ValidationPatches

#: Validation patches of each label that are shown, and at how many epochs of a training at most.
_SHOWN, _PICTURES = 4, 10


_log: ContextVar[_TensorBoardLog | None] = ContextVar("log", default=None)


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Write what the trainings of a block look like into a folder, for TensorBoard.

    Args:
        folder: Gets an event file; made if need be.

    Raises:
        QprdError: tensorboard is not installed, or the folder cannot be written.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise QprdError(
            "TensorBoard is not installed.",
            where="--log-dir",
            fix='Run pip install "qprd[log]", or train without --log-dir.',
            exit_code=ExitCode.USAGE,
        )
    with write_errors("The log", folder):
        folder.mkdir(parents=True, exist_ok=True)
        log = _TensorBoardLog(folder)
    token = _log.set(log)
    try:
        yield
    finally:
        _log.reset(token)
        log.close()


def track_epoch(
    row: Epoch,
    *,
    rate: float,
    config: TrainConfig,
    model: Network,
    val: ValidationPatches | None,
    fabric: Fabric,
) -> None:
    """Tell whoever follows the training of an epoch that was finished.

    Args:
        row: Its figures.
        rate: The learning rate after it.
        config: Settings.
        model: As it is after the epoch.
        val: The validation patches; some of them are shown at about ten of the epochs.
        fabric: Where to compute.
    """
    emit("epoch", **asdict(row), epochs=config.epochs, lr=rate)
    if (log := _log.get()) is None:
        return
    log.curves(
        row.epoch,
        {
            "loss": row.loss,
            "validation/accuracy": row.val_accuracy,
            "validation/AUROC": row.val_auroc,
            "learning rate": rate,
            "seconds": row.seconds,
        },
    )
    every = -(-config.epochs // _PICTURES)
    if val is not None and (row.epoch % every == 0 or row.epoch == config.epochs):
        log.picture(row.epoch, model, val, fabric)


def track_fit(
    model: Network,
    val: ValidationPatches | None,
    scores: NDArray[np.float32] | None,
    fabric: Fabric,
) -> None:
    """Tell whoever follows the training of a model that was fitted without epochs.

    Args:
        model: The model.
        val: The validation patches.
        scores: Their scores.
        fabric: Where to compute.
    """
    log = _log.get()
    if log is not None and val is not None and scores is not None:
        log.curves(0, {"validation/AUROC": auroc(val.tumor, scores)})
        log.picture(0, model, val, fabric)


class _TensorBoardLog:
    """The event file of a training."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def curves(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Add figures of an epoch to the curves; those that are None are left out."""
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def picture(self, epoch: int, model: Network, val: ValidationPatches, fabric: Fabric) -> None:
        """Show validation patches above their score maps, the first of each label.

        Dark is the lowest score of the picture, and bright the highest: each has its own scale.
        """
        labels = (True, False)
        shown = np.concatenate([np.flatnonzero(val.tumor == label)[:_SHOWN] for label in labels])
        images = np.ascontiguousarray(val.images[shown])
        model.eval()
        with torch.inference_mode(), fabric.autocast():
            maps = smooth(model.score_maps(torch.from_numpy(images).to(fabric.device)))
        picture = _above(images, maps.float().cpu().numpy())
        self._writer.add_image("validation patches, tumor first", picture, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _above(images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Patches side by side, (n, 3, p, p), above their maps, (n, p, p): (3, 2 p, n p)."""
    import matplotlib as mpl

    low, high = float(maps.min()), float(maps.max())
    scaled = (maps - low) / max(high - low, 1e-9)
    colors = mpl.colormaps["inferno"](scaled, bytes=True)[..., :3].transpose(0, 3, 1, 2)
    return np.concatenate([np.concatenate(list(row), axis=2) for row in (images, colors)], axis=1)
