"""The epochs of a training: their figures, and which of them is kept."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.files.atomic import replacing


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
class Kept:
    """The epoch whose weights are kept, with its raw validation scores, (N,), if there are any."""

    epoch: Epoch
    state: dict[str, Tensor]
    val_scores: NDArray[np.float32] | None


def save_history(history: Sequence[Epoch], path: Path) -> None:
    """Write a CSV file with a line for each epoch, whole or not at all."""
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)


def row_of(
    number: int,
    loss: float,
    scores: NDArray[np.float32] | None,
    val: ValidationPatches | None,
    seconds: float,
) -> Epoch:
    """The row of an epoch, with the raw scores (N,) of the validation patches if there are any."""
    if scores is None or val is None or not val.has_both_classes:
        return Epoch(number, loss, None, None, seconds)
    threshold = accuracy_threshold(val.tumor, scores)
    accuracy = None if threshold is None else threshold.accuracy
    return Epoch(number, loss, accuracy, auroc(val.tumor, scores), seconds)


def is_better(row: Epoch, kept: Epoch) -> bool:
    """Whether an epoch is kept in place of an earlier one."""
    if row.val_accuracy is None or kept.val_accuracy is None:
        return True
    return (row.val_accuracy, row.val_auroc or 0.0) > (kept.val_accuracy, kept.val_auroc or 0.0)


def note_of(row: Epoch) -> str:
    """The figures of an epoch for the bar."""
    text = f"loss {row.loss:.4f}"
    if row.val_accuracy is not None and row.val_auroc is not None:
        text += f"  val accuracy {row.val_accuracy:.3f}  AUROC {row.val_auroc:.3f}"
    return text
