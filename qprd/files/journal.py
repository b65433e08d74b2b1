"""The journal: which files are about to be replaced, written down before the first of them is.

A process that dies in between, or a computer that loses power, leaves the journal behind.
`recover` then finishes what was begun or, where that is not possible any more, takes it back.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import is_temporary_name, remove_if_empty, replacing, sync_folder
from qprd.files.filestate import sha256_of
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout, resolve_inside

_MAX_JOURNAL_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Change:
    """One file that is replaced, made or removed.

    Attributes:
        target: The file.
        staged: What takes its place, beside it; None if the file is removed.
        original: A second copy of the file as it was; None if there was none.
        before: SHA-256 of the file as it was; None if there was none.
        after: SHA-256 of what takes its place; None if the file is removed.
    """

    target: Path
    staged: Path | None
    original: Path | None
    before: str | None
    after: str | None

    def is_waiting(self) -> bool:
        """Whether the file has not been replaced yet."""
        if self.staged is not None:
            return self.staged.exists()
        return sha256_of(self.target) == self.before

    def is_as_meant(self) -> bool:
        """Whether the file is what was to take its place, and its copy what it was before.

        A program that had opened the file before it was replaced writes into the copy.
        """
        kept = None if self.original is None else sha256_of(self.original)
        return sha256_of(self.target) == self.after and kept == self.before


def apply(change: Change) -> None:
    """Put what was staged in its place.

    Raises:
        OSError: it cannot be done.
    """
    if change.staged is None:
        change.target.unlink(missing_ok=True)
    else:
        change.staged.replace(change.target)


def take_back(changes: Sequence[Change]) -> list[Path]:
    """Give the files that were replaced their original contents again.

    Returns:
        Files that somebody else has changed since they were replaced, and which stay so.

    Raises:
        OSError: it cannot be done.
        QprdError: a file cannot be read.
    """
    left: list[Path] = []
    for change in reversed(changes):
        now = sha256_of(change.target)
        if now == change.before or change.is_waiting():
            continue
        if now != change.after:
            left.append(change.target)
        elif change.original is None:
            change.target.unlink(missing_ok=True)
        else:
            change.original.replace(change.target)
    for change in changes:
        if change.staged is not None:
            change.staged.unlink(missing_ok=True)
    return left


@dataclass(frozen=True)
class _RecordedChange:
    target: str
    staged: str | None
    original: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True)
class _Record:
    state: Literal["preparing", "replacing"]
    staged: tuple[str, ...]
    step: str
    changes: tuple[_RecordedChange, ...]


_RECORD = TypeAdapter(_Record)


class Journal:
    """The journal of one transaction.

    Args:
        project: The ``.qpproj`` file.
        step: Folder of the transaction's backup, which is removed if it comes to nothing.
    """

    def __init__(self, project: Path, step: Path) -> None:
        self._layout = ProjectLayout(project)
        self._root = project.parent.resolve()
        self._step = step

    def prepare(self, staged: Sequence[Path]) -> None:
        """Write down which temporary files there will be, to be removed after a crash.

        Raises:
            OSError: the journal cannot be written.
        """
        names = tuple(self._name(path) for path in staged)
        self._write(_Record("preparing", names, self._name(self._step), ()))

    def begin(self, changes: Sequence[Change]) -> None:
        """Write down what is going to be replaced, for good: from here on it can be finished.

        Raises:
            OSError: the journal cannot be written.
        """
        recorded = tuple(
            _RecordedChange(
                self._name(change.target),
                None if change.staged is None else self._name(change.staged),
                None if change.original is None else self._name(change.original),
                change.before,
                change.after,
            )
            for change in changes
        )
        self._write(_Record("replacing", (), self._name(self._step), recorded))

    def end(self) -> None:
        """All is done, or nothing is left of it."""
        self._layout.journal.unlink(missing_ok=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _write(self, record: _Record) -> None:
        with replacing(self._layout.journal) as new:
            new.write_bytes(_RECORD.dump_json(record))


def is_unfinished(project: Path) -> bool:
    """Whether a transaction was broken off, or is under way."""
    return ProjectLayout(project).journal.exists()


def recover(project: Path) -> list[str]:
    """Finish or take back what a crash left; to be called by whoever holds the lock.

    It is finished if each file that still waits is as it was then. Else somebody has changed one
    of them since, and those that had been replaced get their original contents back, unless they
    were changed as well.

    Returns:
        What was done, in sentences; nothing if there was nothing to do.

    Raises:
        QprdError: the journal is damaged, or the files cannot be written.
    """
    layout = ProjectLayout(project)
    if not is_unfinished(project):
        return []
    record = _read(project)
    step, changes, staged = _resolved(project, record)
    try:
        if record.state == "preparing":
            for path in staged:
                path.unlink(missing_ok=True)
            shutil.rmtree(step, ignore_errors=True)
            remove_if_empty(step.parent)
            layout.journal.unlink(missing_ok=True)
            return ["What an earlier command had begun to write was cleared away."]
        said = _finish(changes) if _can_be_finished(changes) else None
        if said is None:
            left = take_back(changes)
            said = _said("taken back", changes, left)
            if not left:
                shutil.rmtree(step, ignore_errors=True)
            # A crash in between may have left it so.
            remove_if_empty(step.parent)
        for folder in {change.target.parent for change in changes}:
            sync_folder(folder)
        layout.journal.unlink(missing_ok=True)
    except OSError as error:
        raise QprdError(
            f"A write that was broken off cannot be cleared up: {error.strerror or error}.",
            where=str(layout.journal),
            fix="Free some space or get write access, and run it again; nothing is lost.",
            exit_code=ExitCode.FAILED,
        ) from error
    return [said]


def _can_be_finished(changes: Sequence[Change]) -> bool:
    for change in changes:
        now = sha256_of(change.target)
        if change.is_waiting():
            if now != change.before:
                return False
            if change.staged is not None and sha256_of(change.staged) != change.after:
                return False
        elif now == change.before:
            # It had been replaced and was being taken back.
            return False
    return True


def _finish(changes: Sequence[Change]) -> str | None:
    """None if the files cannot be replaced."""
    try:
        for change in changes:
            if change.is_waiting():
                apply(change)
    except OSError:
        return None
    return _said("finished", changes, [])


def _said(what: str, changes: Sequence[Change], left: Sequence[Path]) -> str:
    names = ", ".join(change.target.name for change in changes)
    said = f"A write that had been broken off was {what} ({names})."
    if left:
        others = ", ".join(str(path) for path in left)
        said += f" Changed by another program since, and left as they are: {others}."
    return said


def _read(project: Path) -> _Record:
    path = ProjectLayout(project).journal
    text = read_text(path, what="a journal of qprd", limit_bytes=_MAX_JOURNAL_BYTES)
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        raise _damaged(project) from error


def _resolved(project: Path, record: _Record) -> tuple[Path, list[Change], list[Path]]:
    """The paths in a record, if none of them leads elsewhere: a stranger may have written it."""
    root, backups = project.parent, ProjectLayout(project).backups

    def inside(name: str, folder: Path = root) -> Path:
        path = resolve_inside(root / name, folder)
        if path == folder.resolve():
            raise _damaged(project)
        return path

    def temporary(name: str, target: Path | None = None) -> Path:
        path = inside(name)
        is_beside = target is None or path == target.with_name(path.name)
        if not (is_temporary_name(path) and is_beside):
            raise _damaged(project)
        return path

    changes = []
    for one in record.changes:
        target = inside(one.target)
        staged = None if one.staged is None else temporary(one.staged, target)
        original = None if one.original is None else inside(one.original, backups)
        if (staged is None) != (one.after is None) or (original is None) != (one.before is None):
            raise _damaged(project)
        changes.append(Change(target, staged, original, one.before, one.after))
    return inside(record.step, backups), changes, [temporary(name) for name in record.staged]


def _damaged(project: Path) -> QprdError:
    return QprdError(
        "qprd's journal of an unfinished write is damaged; nothing was written.",
        where=str(ProjectLayout(project).journal),
        fix="Look at the project in QuPath; if all is well, delete the journal.",
        exit_code=ExitCode.FAILED,
    )
