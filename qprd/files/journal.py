"""The journal: which files are about to be replaced, written down before the first of them is.

It is the manifest of the step that is under way, and becomes that of the backup when all files are
replaced. A process that dies in between, or a computer that loses power, leaves the journal behind.
`recover` then finishes what was begun or, where that is not possible any more, takes it back.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import is_temporary_name, replacing, sync_folder
from qprd.files.backups import (
    MANIFEST,
    MANIFESTS,
    KeptFile,
    Manifest,
    read_manifest,
    remove_if_without_steps,
)
from qprd.files.filestate import sha256_of
from qprd.files.layout import ProjectLayout


@dataclass(frozen=True)
class Change:
    """One file that is replaced, made or removed.

    Attributes:
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

    def recorded(self, root: Path) -> KeptFile:
        """What a manifest in this project says about the change."""
        return KeptFile(
            path=self.target.relative_to(root).as_posix(),
            before=self.before,
            after=self.after,
            staged=None if self.staged is None else self.staged.name,
        )

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

    def can_be_finished(self) -> bool:
        """Whether the file was replaced, or can be as it was meant."""
        now = sha256_of(self.target)
        if not self.is_waiting():
            # What is as it was before had been replaced and was being taken back.
            return now != self.before
        return now == self.before and (self.staged is None or sha256_of(self.staged) == self.after)


def apply(change: Change) -> None:
    """Put what was staged in its place."""
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


def write_journal(project: Path, manifest: Manifest) -> None:
    """Write down what is going to be replaced: from here on it can be finished."""
    with replacing(ProjectLayout(project).journal) as new:
        new.write_bytes(MANIFESTS.dump_json(manifest, indent=2))


def close_journal(project: Path, step: Path) -> None:
    """All files were replaced: the journal becomes the manifest of the backup."""
    shutil.move(ProjectLayout(project).journal, step / MANIFEST)
    sync_folder(step)


def drop_journal(project: Path, step: Path) -> None:
    """Nothing was replaced, or all was taken back: the journal and the step's backup go."""
    journal = ProjectLayout(project).journal
    journal.unlink(missing_ok=True)
    sync_folder(journal.parent)
    shutil.rmtree(step, ignore_errors=True)
    remove_if_without_steps(step.parent)


def is_unfinished(project: Path) -> bool:
    """Whether a transaction was broken off, or is under way."""
    return ProjectLayout(project).journal.exists()


def require_readable(project: Path) -> None:
    """Make sure that the journal of a broken-off transaction can be read; changes nothing."""
    _read(project)


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
    if not is_unfinished(project):
        return []
    step, changes = _read(project)
    try:
        left: list[Path] = []
        is_finished = _finish(changes)
        if not is_finished:
            left = take_back(changes)
        for folder in {change.target.parent for change in changes}:
            sync_folder(folder)
        if is_finished or left:
            close_journal(project, step)
        else:
            drop_journal(project, step)
    except OSError as error:
        raise QprdError(
            f"A write that was broken off cannot be cleared up: {error.strerror or error}.",
            where=str(ProjectLayout(project).journal),
            fix="Free some space or get write access, and run it again; nothing is lost.",
            exit_code=ExitCode.FAILED,
        ) from error
    names = ", ".join(change.target.name for change in changes)
    done = "finished" if is_finished else "taken back"
    said = f"A write that had been broken off was {done} ({names})."
    if left:
        others = ", ".join(str(path) for path in left)
        said += f" Changed by another program since, and left as they are: {others}."
    return [said]


def _finish(changes: Sequence[Change]) -> bool:
    """Replace the files that still wait; False if they cannot be replaced."""
    if not all(change.can_be_finished() for change in changes):
        return False
    try:
        for change in changes:
            if change.is_waiting():
                apply(change)
    except OSError:
        return False
    return True


def _read(project: Path) -> tuple[Path, list[Change]]:
    """The step's folder and its changes; a stranger may have written the journal."""
    layout = ProjectLayout(project)
    root = project.parent.resolve()
    try:
        manifest = read_manifest(layout.journal)
        step = layout.inside(root / manifest.folder)
        if step.parent.parent != layout.inside(layout.backups):
            raise ValueError("the step is no folder of a backup")
        return step, [_change(file, layout, step) for file in manifest.files]
    except (QprdError, ValueError) as error:
        raise QprdError(
            "qprd's journal of an unfinished write is damaged; nothing was written.",
            where=str(layout.journal),
            fix="Look at the project in QuPath; if all is well, delete the journal.",
            exit_code=ExitCode.FAILED,
        ) from error


def _change(file: KeptFile, layout: ProjectLayout, step: Path) -> Change:
    """The change that a manifest records.

    Raises:
        QprdError: a path leads out of the project.
        ValueError: the record contradicts itself.
    """
    root = layout.project.parent.resolve()
    target = layout.inside(root / file.path)
    staged = None if file.staged is None else target.with_name(file.staged)
    original = None if file.before is None else layout.inside(step / file.path)
    if original is not None and not original.is_relative_to(step):
        raise ValueError("the copy of a file is not in the backup")
    if (staged is None) != (file.after is None) or target == root:
        raise ValueError("the record of a file contradicts itself")
    if staged is not None and not is_temporary_name(staged):
        raise ValueError("what takes a file's place is no temporary file")
    return Change(target, staged, original, file.before, file.after)
