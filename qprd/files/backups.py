"""``<project>/qprd/backups``: what files were before qprd changed them.

A folder a command, named by its time; in it a folder a step, which is one image, with the files at
their paths inside the project and a ``manifest.json``. A file that several steps of a command
change (``project.qpproj``) is kept once, as it was before the first of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from qprd import __version__
from qprd.errors import QprdError
from qprd.files.atomic import remove_folder, replacing
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout, resolve_inside

#: The newest commands whose backups are kept, if they fit into `MAX_BYTES`; the newest always is.
MAX_RUNS = 10
MAX_BYTES = 2 * 2**30

#: The command whose backups are no steps to take back.
UNDO = "undo"

_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 16 * 2**20
_TIME = "%Y-%m-%dT%H-%M-%S.%fZ"
_RUN_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}Z")


@dataclass(frozen=True)
class ImportedFrom:
    """What annotations were imported from.

    Attributes:
        source: As in `qprd.qupath.project.AnnotationImport`.
        class_name: The class they got.
    """

    source: str
    class_name: str


@dataclass(frozen=True)
class Subject:
    """What a transaction is about.

    Attributes:
        entry: Id of the project entry.
        image: Its name.
        imported: Where annotations came from; None for predictions.
    """

    entry: str
    image: str
    imported: ImportedFrom | None = None


@dataclass(frozen=True)
class KeptFile:
    """A file that a step changed.

    Attributes:
        path: Inside the project, with slashes.
        before: SHA-256 of what it was, None if there was no such file.
        after: SHA-256 of what it became, None if it was removed.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Manifest:
    """What a step was.

    Attributes:
        command: Such as ``write-back``.
        backend: Which of the two wrote.
        qprd: Version.
        time: ISO 8601, UTC.
        subject: The image.
        files: What changed.
        undone: Whether it was taken back while other steps of its command could not be.
    """

    command: str
    backend: str
    qprd: str
    time: str
    subject: Subject
    files: tuple[KeptFile, ...]
    undone: bool = False


_MANIFESTS = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Step:
    """A step of a command, as its folder has it."""

    folder: Path
    manifest: Manifest

    def copy_of(self, path: str) -> Path:
        """Where the file was put as it was before this step, if it was."""
        return self.folder / path

    def mark_undone(self) -> None:
        """Say in the manifest that the step was taken back.

        Raises:
            OSError: it cannot be written.
        """
        write_manifest(self.folder, replace(self.manifest, undone=True))


@dataclass(frozen=True)
class Run:
    """The backups of one command, its steps in order."""

    folder: Path
    steps: tuple[Step, ...]

    @property
    def command(self) -> str:
        """Such as ``write-back``."""
        return self.steps[0].manifest.command

    @property
    def time(self) -> str:
        """When it began, ISO 8601, UTC."""
        date, clock = self.folder.name.split(".")[0].split("T")
        return f"{date}T{clock.replace('-', ':')}Z"


class RunFolder:
    """The folder of a command that is writing; made when it first changes something.

    Args:
        project: The ``.qpproj`` file.
        command: Such as ``write-back``.
        backend: Which of the two writes.
    """

    def __init__(self, project: Path, command: str, backend: str) -> None:
        self._root = project.parent.resolve()
        self._backups = ProjectLayout(project).backups
        self._command = command
        self._backend = backend
        self._steps = 0
        self._kept: set[str] = set()
        self._folder: Path | None = None

    @property
    def folder(self) -> Path | None:
        """None as long as nothing was changed."""
        return self._folder if self._kept else None

    def next_step(self) -> Path:
        """A folder for the next step, not made yet; in a resolved place inside the project.

        Raises:
            QprdError: the folder of backups is a link out of the project.
        """
        if self._folder is None:
            backups = resolve_inside(self._backups, self._root)
            self._folder = backups / _new_name(backups)
        return self._folder / f"{self._steps + 1:04d}"

    def write(self, step: Path, subject: Subject, files: Sequence[KeptFile]) -> None:
        """Write the manifest of a step.

        Raises:
            OSError: it cannot be written.
        """
        manifest = Manifest(
            command=self._command,
            backend=self._backend,
            qprd=__version__,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            subject=subject,
            files=tuple(files),
        )
        write_manifest(step, manifest)

    def done(self, step: Path, files: Sequence[KeptFile]) -> None:
        """A step was completed: what an earlier one has kept already need not be kept again."""
        self._steps += 1
        for file in files:
            if file.path in self._kept:
                with contextlib.suppress(OSError):
                    (step / file.path).unlink(missing_ok=True)
            self._kept.add(file.path)

    def clear(self) -> None:
        """Remove the folder again if nothing was changed."""
        if self._folder is not None and not self._kept:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def write_manifest(step: Path, manifest: Manifest) -> None:
    """Write a step's manifest, whole or not at all, forced to the disk.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(step / _MANIFEST) as new:
        new.write_bytes(_MANIFESTS.dump_json(manifest, indent=2))


def read_runs(project: Path) -> list[Run]:
    """The backups of a project, the newest first.

    Raises:
        QprdError: a manifest is damaged, or names files outside the project.
    """
    runs = []
    for folder in reversed(_run_folders(project)):
        steps = tuple(_read_steps(project, folder))
        if steps:
            runs.append(Run(folder, steps))
    return runs


def undoable(project: Path) -> list[Run]:
    """The commands that can be taken back, the newest first, without the steps that were.

    Raises:
        QprdError: as `read_runs`.
    """
    left = [
        Run(run.folder, tuple(step for step in run.steps if not step.manifest.undone))
        for run in read_runs(project)
        if run.command != UNDO
    ]
    return [run for run in left if run.steps]


def prune(project: Path) -> None:
    """Remove the oldest backups: more than `MAX_RUNS`, or than fit into `MAX_BYTES`."""
    size = 0
    for count, folder in enumerate(reversed(_run_folders(project))):
        size += size_of(folder)
        if count and (count >= MAX_RUNS or size > MAX_BYTES):
            remove_folder(folder)


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    size = 0
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return size


def _run_folders(project: Path) -> list[Path]:
    """The oldest first."""
    backups = ProjectLayout(project).backups
    with contextlib.suppress(OSError):
        return sorted(
            path
            for path in backups.iterdir()
            if _RUN_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        )
    return []


def _new_name(backups: Path) -> str:
    """The present time, or just after the newest backup if a clock went wrong."""
    time = datetime.now(timezone.utc)
    with contextlib.suppress(OSError, ValueError):
        newest = max(path.name for path in backups.iterdir() if _RUN_NAME.fullmatch(path.name))
        after = datetime.strptime(newest, _TIME).replace(tzinfo=timezone.utc)
        time = max(time, after + timedelta(microseconds=1))
    return time.strftime(_TIME)


def _read_steps(project: Path, run: Path) -> Iterator[Step]:
    for folder in sorted(path for path in run.iterdir() if path.is_dir()):
        # A step without a manifest never came to replace anything.
        if (folder / _MANIFEST).is_file():
            manifest = _read_manifest(folder / _MANIFEST)
            for file in manifest.files:
                resolve_inside(project.parent / file.path, project.parent)
                resolve_inside(folder / file.path, folder)
            yield Step(folder, manifest)


def _read_manifest(path: Path) -> Manifest:
    text = read_text(path, what="a manifest of qprd", limit_bytes=_MAX_MANIFEST_BYTES)
    try:
        return _MANIFESTS.validate_json(text)
    except ValidationError as error:
        raise QprdError(
            "The manifest of this backup is damaged.",
            where=str(path),
            fix="Move the folder of this backup out of qprd/backups.",
        ) from error
