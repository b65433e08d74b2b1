"""``qprd remove``: what qprd wrote, out of the project again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qprd.errors import DiskError, QprdError
from qprd.jobs.reporting import NOTHING_TOUCHED, backup_note, changed_files, not_tried
from qprd.predictions import Predictions
from qprd.progress import Progress
from qprd.qupath.entry_slides import select_entries
from qprd.qupath.project import Project


@dataclass(frozen=True)
class RemoveSummary:
    """What a removal did.

    Attributes:
        project: The project file.
        backend: Name of the backend that wrote.
        in_qupath: Whether QuPath's own data were written; else a script does the rest there.
        removed: Number of objects by image name.
        problems: Image name and reason of each image where nothing could be removed.
        notes: What else the user should know.
        backup: Where the files are as they were before; None if none of them changed.
        files: Which files changed, or would change, by image name.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
    in_qupath: bool
    removed: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    backup: Path | None = None
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def failed(self) -> int:
        """Images where nothing could be removed."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        done = "would be removed" if self.dry_run else "removed"
        lines = [
            f"{image}: {count} objects of qprd {done}"
            + (f"; {changed_files(self.files[image], self.project)}" if self.dry_run else "")
            for image, count in self.removed.items()
        ]
        if not self.removed and not self.problems:
            lines.append("There was nothing of qprd to remove.")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not removed: {problem}" for problem in self.problems]
        if self.dry_run:
            return [*lines, NOTHING_TOUCHED]
        if self.backup is not None:
            lines.append(backup_note(self.backup, self.project))
        if self.removed and not self.in_qupath:
            lines.append(
                "In QuPath, run groovy/import_predictions.groovy for the project: it takes out "
                "what an earlier run of it brought in."
            )
        return lines


def remove_from_project(
    project: Project,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress,
) -> RemoveSummary:
    """Take tiles, contours and slide scores out of the project again, and nothing else.

    Contours whose class a person changed are the person's, and stay. Result files stay too.

    Args:
        project: The project.
        images: Names of images; empty for all.
        exclude: Names of images to leave out.
        dry_run: Say what would change, and touch nothing.
        progress: Shows what takes long.

    Raises:
        QprdError: there is no such image, or another command is writing.
    """
    entries = select_entries(project, images, exclude)
    removed: dict[str, int] = {}
    files: dict[str, tuple[Path, ...]] = {}
    problems: list[str] = []
    with (
        project.writing("remove", entries, dry_run=dry_run) as session,
        progress.task("removing", len(entries)) as task,
    ):
        for position, entry in enumerate(entries, start=1):
            try:
                own = project.read_predictions(entry)
                if own.tiles or own.annotations or own.metadata:
                    report = project.write_predictions(entry, Predictions(tiles=(), contours=()))
                    removed[entry.name] = report.replaced
                    files[entry.name] = report.files
            except QprdError as error:
                problems.append(error.line_about(entry.name))
                if isinstance(error, DiskError):
                    problems += not_tried(entries[position:])
                    break
            task.advance()
    return RemoveSummary(
        project=project.path,
        backend=project.backend,
        in_qupath=project.writes_qupath_data,
        removed=removed,
        problems=tuple(problems),
        notes=session.notes,
        backup=session.backup,
        files=files,
        dry_run=dry_run,
    )
