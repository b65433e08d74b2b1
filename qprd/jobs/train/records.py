"""Room for the bundle of a training, and the records beside its weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE, PLOT_FILE
from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import replacing, write_errors
from qprd.sampling.table import PatchTable

if TYPE_CHECKING:
    from qprd.model.network import Network
    from qprd.training.loop import TrainingOutcome


def require_space(root: Path, model: Network) -> None:
    """Check before long work that there is room for the bundle and the checkpoints.

    A checkpoint of a student has its weights, those of its best epoch, and two moments of each; a
    new one is written before the old one goes.

    Raises:
        QprdError: there is not.
    """
    needed = sum(
        tensor.numel() * tensor.element_size() for tensor in model.trainable_state().values()
    )
    needed *= 3 if model.kind == "discriminant" else 9
    free = shutil.disk_usage(root).free
    if free < needed:
        raise QprdError(
            f"The training needs {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free.",
            where=str(root),
            fix="Free some disk space.",
            exit_code=ExitCode.FAILED,
        )


def save_records(bundle: Path, table: PatchTable, outcome: TrainingOutcome) -> None:
    """Put the patch table and, if there were epochs, their history and its picture into a bundle.

    Each file is whole or not there.
    """
    from qprd.review.training_plot import training_plot
    from qprd.training.history import save_history

    rows = [asdict(row) for row in outcome.history]
    records: dict[str, Callable[[Path], object]] = {PATCHES_FILE: table.to_csv}
    if outcome.best is not None:
        best = outcome.best.epoch
        records |= {
            HISTORY_FILE: lambda path: save_history(outcome.history, path),
            PLOT_FILE: lambda path: training_plot(rows, path, best_epoch=best, title=bundle.name),
        }
    for name, save in records.items():
        what = f"The bundle is saved and can be used, but its {name}"
        with write_errors(what, bundle), replacing(bundle / name) as new:
            save(new)
