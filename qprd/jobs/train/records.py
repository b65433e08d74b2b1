"""Files of a training: its cache of patches, and the records beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE, PLOT_FILE
from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import replacing, scratch_folder, write_errors
from qprd.sampling.table import PatchTable

if TYPE_CHECKING:
    from qprd.model.network import Network
    from qprd.training.loop import TrainingOutcome


def writing_cache(path: Path) -> AbstractContextManager[None]:
    """Turn an error of the disk into one that says what cannot be written."""
    return write_errors("The cache of training patches", path)


@contextmanager
def patch_cache(root: Path) -> Iterator[Path]:
    """Make a folder for decoded patches, which is removed when the block ends."""
    with ExitStack() as stack:
        with writing_cache(root):
            folder = stack.enter_context(scratch_folder(root, "cache"))
        yield folder


def require_space(root: Path, model: Network) -> None:
    """Check before long work that there is room for the bundle.

    Raises:
        QprdError: there is not.
    """
    needed = sum(
        tensor.numel() * tensor.element_size() for tensor in model.trainable_state().values()
    )
    free = shutil.disk_usage(root).free
    if free < needed:
        raise QprdError(
            f"The bundle needs {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free.",
            where=str(root),
            fix="Free some disk space.",
            exit_code=ExitCode.FAILED,
        )


def save_records(bundle: Path, table: PatchTable, outcome: TrainingOutcome) -> None:
    """Put the patch table and, if there were epochs, their history and its picture into a bundle.

    Each file is whole or not there.
    """
    from qprd.review.training_plot import training_plot
    from qprd.training.loop import save_history

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
