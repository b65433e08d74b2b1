"""``<project>/qprd/backups``: what files were before qprd changed them.

A folder a command, named by its time; in it a folder a step, which is one image, with the files at
their paths inside the project and a ``manifest.json``. A file that several steps of a command
change (``project.qpproj``) is kept once, as it was before the first of them, unless others changed
it in between. A step without a manifest was broken off, and the journal (`qprd.files.journal`) says
whether anything came of it. A command that was broken off leaves the file ``unfinished``; the same
command, run again, continues in its folder.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from qprd.errors import QprdError
from qprd.files.atomic import remove_folder, remove_if_empty, replacing, write_errors
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout, resolve_inside

#: The newest commands whose backups are kept, if they fit into `MAX_BYTES`; the newest always is.
MAX_RUNS = 10
MAX_BYTES = 2 * 2**30

#: The command whose backups are no steps to take back.
UNDO = "undo"

MANIFEST = "manifest.json"
#: In the folder of a command from its first step until it has come to its end.
UNFINISHED = "unfinished"
_MAX_MANIFEST_BYTES = 256 * 2**20
_TIME = "%Y-%m-%dT%H-%M-%S.%fZ"
_RUN_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}Z")


@dataclass(frozen=True)
class ImportedFrom:
    """What annotations were imported from."""

    source: str
    class_name: str


@dataclass(frozen=True)
class Subject:
    """What a transaction is about.

    Attributes:
        imported: Where annotations came from; None for predictions.
    """

    entry_id: Annotated[str, Field(validation_alias=AliasChoices("entry_id", "entry"))]
    image_name: Annotated[str, Field(validation_alias=AliasChoices("image_name", "image"))]
    imported: ImportedFrom | None = None


@dataclass(frozen=True)
class KeptFile:
    """A file that a step changed.

    Attributes:
        path: Inside the project, with slashes.
        before: SHA-256 of what it was, None if there was no such file.
        after: SHA-256 of what it became, None if it was removed.
        staged: Name of the temporary file beside it that took its place, None if it was removed.
    """

    path: str
    before: str | None
    after: str | None
    staged: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A step of a command.

    Attributes:
        time: ISO 8601, UTC.
        folder: The step's folder, by its path inside the project.
        undone: Whether it was taken back while other steps of its command could not be.
    """

    command: str
    backend: str
    qprd: str
    time: str
    subject: Subject
    files: tuple[KeptFile, ...]
    folder: str = ""
    undone: bool = False


MANIFESTS = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Step:
    """A step of a command, as its folder has it."""

    folder: Path
    manifest: Manifest

    def copy_of(self, path: str) -> Path:
        """Where the file was put as it was before this step, if it was."""
        return self.folder / path


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

    @property
    def is_broken_off(self) -> bool:
        """Whether it did not come to its end; so it seems of one that is under way, too."""
        return (self.folder / UNFINISHED).exists()

    def mark_undone(self, entry_ids: Collection[str]) -> None:
        """Record that the command was taken back on these images; of all, remove its backup."""
        left = [step for step in self.steps if not step.manifest.undone]
        undone = [step for step in left if step.manifest.subject.entry_id in entry_ids]
        if undone == left:
            remove_folder(self.folder)
            return
        for step in undone:
            path = step.folder / MANIFEST
            with write_errors("The backup", path), replacing(path) as new:
                new.write_bytes(MANIFESTS.dump_json(replace(step.manifest, undone=True), indent=2))


def read_runs(project: Path) -> list[Run]:
    """The backups of a project, the newest first.

    Raises:
        QprdError: a manifest is damaged, or names files outside the project.
    """
    runs = [Run(folder, tuple(_read_steps(project, folder))) for folder in run_folders(project)]
    return [run for run in reversed(runs) if run.steps]


def undoable(project: Path) -> list[Run]:
    """The commands that can be taken back, the newest first."""
    return [run for run in read_runs(project) if run.command != UNDO]


def broken_off(project: Path, command: str, entry_ids: Collection[str]) -> Run | None:
    """The newest command, if it was this one, broken off, and about none but these entries."""
    for folder in run_folders(project)[-1:]:
        with contextlib.suppress(QprdError):
            run = Run(folder, tuple(_read_steps(project, folder)))
            if run.is_broken_off and all(
                step.manifest.command == command
                and step.manifest.subject.entry_id in entry_ids
                and not step.manifest.undone
                for step in run.steps
            ):
                return run
    return None


def prune(project: Path) -> None:
    """Remove the oldest backups: more than `MAX_RUNS`, or than fit into `MAX_BYTES`."""
    size = 0
    for count, folder in enumerate(reversed(run_folders(project))):
        size += size_of(folder)
        if count and (count >= MAX_RUNS or size > MAX_BYTES):
            remove_folder(folder)


def remove_broken_off(project: Path) -> None:
    """Remove the steps of commands that were killed before they changed anything.

    To be called by whoever holds the lock, when there is no journal.
    """
    for run in run_folders(project):
        for step in run.iterdir():
            if step.is_dir() and not step.is_symlink() and not (step / MANIFEST).is_file():
                shutil.rmtree(step, ignore_errors=True)
        remove_if_without_steps(run)


def remove_if_without_steps(run: Path) -> None:
    """Remove the folder of a command that has changed nothing."""
    with contextlib.suppress(OSError):
        if [path.name for path in run.iterdir()] == [UNFINISHED]:
            (run / UNFINISHED).unlink()
    remove_if_empty(run)


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    size = 0
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return size


def run_folders(project: Path) -> list[Path]:
    """The folders of all commands, the oldest first."""
    backups = ProjectLayout(project).backups
    with contextlib.suppress(OSError):
        return sorted(
            path
            for path in backups.iterdir()
            if _RUN_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        )
    return []


def new_run_name(project: Path) -> str:
    """The present time, or just after the newest backup if a clock went wrong."""
    time = datetime.now(timezone.utc)
    for newest in run_folders(project)[-1:]:
        with contextlib.suppress(ValueError):
            after = datetime.strptime(newest.name, _TIME).replace(tzinfo=timezone.utc)
            time = max(time, after + timedelta(microseconds=1))
    return time.strftime(_TIME)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, or a journal, which is one."""
    text = read_text(path, what="a manifest of qprd", limit_bytes=_MAX_MANIFEST_BYTES)
    try:
        return MANIFESTS.validate_json(text)
    except ValidationError as error:
        raise QprdError(
            "The manifest of this backup is damaged.",
            where=str(path),
            fix="Move the folder of this backup out of qprd/backups.",
        ) from error


def _read_steps(project: Path, run: Path) -> Iterator[Step]:
    numbered = [path for path in run.iterdir() if re.fullmatch(r"[0-9]{1,9}", path.name)]
    for folder in sorted(numbered, key=lambda path: int(path.name)):
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder / MANIFEST)
            for file in manifest.files:
                ProjectLayout(project).inside(project.parent / file.path)
                resolve_inside(folder / file.path, folder)
            yield Step(folder, manifest)
