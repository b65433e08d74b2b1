"""Commands that write to a project: what they report alike, and how they go from image to image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qprd.errors import DiskError, QprdError
from qprd.files.session import WriteSession
from qprd.progress import Progress
from qprd.qupath.project import Entry, Project

#: The last line of a dry run.
NOTHING_TOUCHED = "This was a dry run: nothing was touched."

#: What to do after QuPath's own data were written.
RELOAD = (
    "If QuPath has one of these images open: File > Reload data, and do not save before, or QuPath "
    "writes over what was just written."
)


def changed_files(files: Sequence[Path], project: Path, verb: str = "changes") -> str:
    """Which files change, by their paths inside the project."""
    root = project.parent.resolve()
    names = sorted(path.relative_to(root).as_posix() for path in files)
    return f"{verb} {', '.join(names) or 'no file'}"


@dataclass(frozen=True, kw_only=True)
class ProjectChange:
    """What a command that writes to a project did.

    Attributes:
        backend: Name of the backend that wrote.
        in_qupath: Whether QuPath's own data were written; else a script does the rest there.
        problems: Image name and reason of each image that stays as it was.
        backup: Where the files are as they were before; None if none of them changed.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
    in_qupath: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    backup: Path | None = None
    dry_run: bool = False

    @property
    def failed(self) -> int:
        """Images that stay as they were."""
        return len(self.problems)

    def _closing(self, refused: str) -> list[str]:
        """Notes, what was refused, and how to get back."""
        lines = [f"note: {note}" for note in self.notes]
        lines += [f"{refused}: {problem}" for problem in self.problems]
        if self.dry_run:
            lines.append(NOTHING_TOUCHED)
        elif self.backup is not None:
            where = self.backup.relative_to(self.project.parent.resolve())
            lines.append(
                f"The files as they were before are in {where}; qprd undo takes this back."
            )
        return lines


def change_images(
    project: Project,
    entries: Sequence[Entry],
    change: Callable[[Entry], object],
    *,
    command: str,
    doing: str,
    dry_run: bool,
    progress: Progress,
    part_of: Sequence[Entry] = (),
    will_continue: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Change one image after the other in a writing session of a project.

    An image that cannot be changed, of which ``change`` raises QprdError, stays as it was, and the
    others go on, unless the disk is full. The progress bar says what the command is ``doing``.

    A command that changes images now and then gives all that it may change as ``part_of``, and
    ``will_continue`` until the last time. It may ``wait`` for another command that is writing.

    Returns:
        The fields of `ProjectChange`.

    Raises:
        QprdError: Another command is writing, or nothing can be written there at all.
    """
    problems: list[str] = []
    with (
        project.writing(
            command, part_of or entries, dry_run=dry_run, wait=wait, will_continue=will_continue
        ) as session,
        progress.task(doing, len(entries)) as task,
    ):
        for position, entry in enumerate(entries, start=1):
            try:
                change(entry)
            except QprdError as error:
                problems.append(error.line_about(entry.name))
                if isinstance(error, DiskError):
                    problems += [f"{e.name}: not tried after that." for e in entries[position:]]
                    break
            task.advance()
    return change_of(project, session, dry_run) | {"problems": tuple(problems)}


def change_of(project: Project, session: WriteSession, dry_run: bool) -> dict[str, Any]:
    """The fields of `ProjectChange` after a writing session without problems."""
    return {
        "project": project.path,
        "backend": project.backend,
        "in_qupath": project.writes_qupath_data,
        "notes": session.notes,
        "backup": session.backup,
        "dry_run": dry_run,
    }
