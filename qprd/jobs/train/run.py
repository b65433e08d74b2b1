"""The folder of a training: what it is made from, and what a stop leaves to go on with.

``qprd/runs/<name>/`` holds ``run.json``, the patch table, the decoded patches, the checkpoint and
``history.csv``. It is there from when the patches are read until the bundle is saved.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from qprd.bundle.ancestry import SlideAnnotations
from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE, is_bundle, reserve_bundle
from qprd.bundle.records import installed_versions
from qprd.checked import STRICT, Text
from qprd.errors import DiskError, ExitCode, QprdError
from qprd.files.atomic import remove_folder, replacing, write_errors
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout
from qprd.given_settings import resumed_train_config, stored_train_config
from qprd.results.freshness import digest
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import SlideIdentity

RUN_FILE: Final = "run.json"
_BUNDLE_FILE: Final = "bundle"
_LOCK_FILE: Final = "lock"
_MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, config=STRICT)
class RunRecord:
    """What a training is made from.

    Attributes:
        config: The resolved settings.
        parent: Folder of the bundle that it continues from, relative to the project's if it is
            within; None without one.
        sampled: Whether its patches were sampled, and not given as a table.
        made_from: A digest of each thing that decides the result, by its name for people.
    """

    config: Mapping[str, JsonValue]
    parent: Text | None = None
    sampled: bool = True
    made_from: Mapping[str, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A training that is under way, or was stopped, in its folder."""

    folder: Path

    @property
    def name(self) -> str:
        """Its name for ``--resume``."""
        return self.folder.name

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        try:
            rows = (self.folder / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
        except OSError:
            return 0
        return max(len(rows) - 1, 0)

    @property
    def is_begun(self) -> bool:
        """Whether it can be resumed: its patches are read."""
        return (self.folder / RUN_FILE).is_file()

    @property
    def is_being_removed(self) -> bool:
        """Whether the folder is no run any more."""
        return self.name.startswith(".")

    @property
    def is_running(self) -> bool:
        """Whether a process is working on it now."""
        try:
            with FileLock(self.folder / _LOCK_FILE, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def record(self) -> RunRecord:
        """Read what it is made from.

        Raises:
            QprdError: it is damaged, or of a newer qprd.
        """
        path = self.folder / RUN_FILE
        text = read_text(path, what="a description of a training", limit_bytes=_MAX_BYTES)
        try:
            return TypeAdapter(RunRecord).validate_json(text)
        except ValidationError as error:
            raise QprdError(
                "This is not a description of a training.",
                where=str(path),
                fix="Train anew without --resume, and delete the run's folder.",
            ) from error

    def config(self, given: Mapping[str, Any], file: Path | None) -> TrainConfig:
        """Its settings, unless others are given.

        Raises:
            QprdError: a setting is given that contradicts them, or they are damaged.
        """
        stored = stored_train_config(self.record().config, where=str(self.folder / RUN_FILE))
        return resumed_train_config(given, file, stored, run=self.name)

    def parent(self, project: Path) -> Path | None:
        """Folder of the bundle that it continues from."""
        parent = self.record().parent
        return None if parent is None else project.parent / parent

    def table(self) -> PatchTable | None:
        """Its patches; None before they are read."""
        if not self.is_begun:
            return None
        return PatchTable.from_csv(self.folder / PATCHES_FILE)

    def will_save(self, bundle: Path) -> None:
        """Write down which bundle the training is about to save.

        Raises:
            QprdError: the run cannot be written.
        """
        with write_errors("The run", self.folder), replacing(self.folder / _BUNDLE_FILE) as new:
            new.write_text(bundle.name, encoding="utf-8")

    def saved(self, bundles: Path) -> Path | None:
        """The bundle that was saved before the training was stopped; None if there is none."""
        with suppress(OSError):
            bundle = bundles / Path((self.folder / _BUNDLE_FILE).read_text(encoding="utf-8")).name
            return bundle if is_bundle(bundle) else None
        return None

    def begin(self, record: RunRecord, table: PatchTable) -> None:
        """Write down what the training is made from; if that is known, compare.

        Raises:
            QprdError: something is not as it was, or the run cannot be written.
        """
        if not self.is_begun:
            with write_errors("The run", self.folder):
                table.to_csv(self.folder / PATCHES_FILE)
                with replacing(self.folder / RUN_FILE) as new:
                    new.write_bytes(TypeAdapter(RunRecord).dump_json(record, indent=1))
            return
        before, now = self.record().made_from, record.made_from
        names = dict.fromkeys((*before, *now))
        changed = [name for name in names if before.get(name) != now.get(name)]
        if changed:
            raise QprdError(
                "This training cannot go on as it began; since then these have changed: "
                f"{', '.join(changed)}.",
                where=str(self.folder),
                fix="Undo the changes and resume it, or train anew without --resume and delete "
                "the run's folder.",
            )


def made_from(
    table: PatchTable,
    slides: Mapping[str, SlideIdentity],
    annotations: tuple[SlideAnnotations, ...],
    *,
    teacher_sha256: str,
    parent_sha256: str | None,
) -> dict[str, str]:
    """Digests of all that decides the result of a training but its settings.

    ``slides`` are those of training and validation, by entry id; ``annotations`` those that decide
    where patches come from.
    """
    patches = [asdict(patch) for patch in table.patches if patch.split != "test"]
    used = dict.fromkeys(str(patch["slide"]) for patch in patches)
    return {
        "the versions of qprd and PyTorch": digest(installed_versions()),
        "the weights of the teacher": teacher_sha256,
        "the bundle that it continues from": parent_sha256 or "",
        **{f"the slide {slides[s].name} ({s})": digest(asdict(slides[s])) for s in used},
        **{f"the annotations of {a.image} ({a.entry_id})": a.sha256 for a in annotations},
        "the patches": digest(patches),
    }


def runs_of(project: Path) -> list[Run]:
    """The trainings of a project that are under way or were stopped, the oldest first."""
    runs = ProjectLayout(project).runs
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    return [run for run in map(Run, folders) if not run.is_being_removed and run.is_begun]


def stopped_run(project: Path, name: str | None, *, or_running: bool = False) -> Run:
    """Find a run that was stopped: by its name, or the newest.

    Args:
        project: The project file.
        name: Its name; None for the newest.
        or_running: Accept one that is under way: the process that leads this one runs it.

    Raises:
        QprdError: there is none, or it is under way.
    """
    runs = runs_of(project)
    stopped = [run for run in runs if or_running or not run.is_running]
    if name is None and stopped:
        return stopped[-1]
    named = [run for run in runs if run.name == name]
    if named and named[0] in stopped:
        return named[0]
    known = ", ".join(run.name for run in stopped)
    raise QprdError(
        "Another process is working on this training."
        if named
        else "There is no training to resume."
        if name is None
        else f"There is no training {name} to resume.",
        where=str(ProjectLayout(project).runs),
        fix=f"Resume one of these: {known}." if known else "Train without --resume.",
        exit_code=ExitCode.USAGE,
    )


@contextmanager
def training_run(project: Path, config: TrainConfig, resumed: Run | None) -> Iterator[Run]:
    """The folder of a training: a new one, or that of one that is resumed.

    If the block succeeds it is removed. If it fails, the run stays where there is something to go
    on with, and the error says how.

    Raises:
        QprdError: it cannot be made, or another process is working on it.
    """
    from qprd.training.checkpoint import has_checkpoint

    runs, is_resumed = ProjectLayout(project).runs, resumed is not None
    if resumed is None:
        remove_abandoned(project)
        with write_errors("The run", runs):
            folder = reserve_bundle(runs, datetime.now(timezone.utc), config.teacher)
        resumed = Run(folder)
    lock = FileLock(resumed.folder / _LOCK_FILE, timeout=0)
    try:
        with write_errors("The run", resumed.folder):
            lock.acquire()
    except Timeout as error:
        raise QprdError(
            "Another process is working on this training.",
            where=str(resumed.folder),
            fix="Wait until it has ended.",
            exit_code=ExitCode.FAILED,
        ) from error
    keep = False
    how = f"Go on with: qprd train {shlex.quote(str(project))} --resume {resumed.name}"
    try:
        yield resumed
    except KeyboardInterrupt as stop:
        keep = resumed.is_begun
        if keep:
            stop.args = (f"{_kept(resumed, config)} {how}",)
        raise
    except QprdError as error:
        # One that fails at once would fail again, but for want of room.
        keep = is_resumed or has_checkpoint(resumed.folder) or isinstance(error, DiskError)
        keep = keep and resumed.is_begun
        if keep and "--resume" not in f"{error.where} {error.fix}":
            error.fix = f"{error.fix or ''} {how}".lstrip()
        raise
    except BaseException:
        keep = resumed.is_begun
        raise
    finally:
        lock.release()
        if not keep:
            remove_folder(resumed.folder)
            with suppress(OSError):
                runs.rmdir()


def _kept(run: Run, config: TrainConfig) -> str:
    if not run.epochs:
        return "What was read and computed so far is kept."
    return (
        f"{run.epochs} of {config.epochs} epochs are finished and kept; --finish makes a bundle of "
        "them."
    )


def remove_abandoned(project: Path) -> None:
    """Remove the folders of trainings that were killed before their patches were read."""
    runs = ProjectLayout(project).runs
    for folder in runs.iterdir() if runs.is_dir() else ():
        run = Run(folder)
        if not run.is_being_removed and not run.is_begun and not run.is_running:
            remove_folder(folder)
