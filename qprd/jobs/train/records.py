"""What a training writes beside the weights, and what it finds out about the disk beforehand."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qprd.errors import ExitCode, QprdError
from qprd.sampling.table import PatchTable

if TYPE_CHECKING:
    from qprd.model.frd import FRD
    from qprd.training.loop import TrainingOutcome

PATCHES = "patches.csv"
HISTORY = "history.csv"
PLOT = "history.png"


@contextmanager
def writing_cache(path: Path) -> Iterator[None]:
    """Turn a full disk and the like into an error that says so."""
    try:
        yield
    except OSError as error:
        raise QprdError(
            f"Patches cannot be kept here while training: {error.strerror or error}.",
            where=str(path),
            fix="Free some disk space, or make the folder writable.",
            exit_code=ExitCode.FAILED,
        ) from error


@contextmanager
def patch_cache(root: Path) -> Iterator[Path]:
    """A folder for decoded patches that vanishes with its contents."""
    with writing_cache(root):
        folder = TemporaryDirectory(prefix="cache-", dir=root, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def require_space(root: Path, model: FRD) -> None:
    """Find out before long work that its result cannot be saved."""
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
    """Put patch table and history into a bundle, each file whole or not at all."""
    from qprd.review.training_plot import training_plot
    from qprd.training.loop import save_history

    rows = [asdict(row) for row in outcome.history]
    best = outcome.best.epoch
    records: dict[str, Callable[[Path], object]] = {
        PATCHES: table.to_csv,
        HISTORY: lambda path: save_history(outcome.history, path),
        PLOT: lambda path: training_plot(rows, path, best_epoch=best, title=bundle.name),
    }
    for name, save in records.items():
        partial = bundle / f".{name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            save(partial)
            partial.replace(bundle / name)
        except OSError as error:
            raise QprdError(
                f"The bundle is saved and can be used, but not its {name}: "
                f"{error.strerror or error}.",
                where=str(bundle),
                fix="Free some disk space before the next training.",
                exit_code=ExitCode.FAILED,
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
