"""``qprd remove``: what qprd wrote, out of the project again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.jobs.changes import ProjectChange, change_images, changed_files
from qprd.names import counted
from qprd.predictions import Predictions
from qprd.progress import Progress, progress_bars
from qprd.qupath.entry_slides import select_entries
from qprd.qupath.project import Entry, Project


@dataclass(frozen=True, kw_only=True)
class RemoveSummary(ProjectChange):
    """What a removal did.

    Attributes:
        removed: Number of objects by image name.
        files: Which files changed, or would change, by image name.
    """

    removed: Mapping[str, int]
    files: Mapping[str, tuple[Path, ...]]

    def lines(self) -> list[str]:
        """The summary for people."""
        done = "would be removed" if self.dry_run else "removed"
        lines = [
            f"{image}: {counted(count, 'object')} of qprd {done}"
            + (f"; {changed_files(self.files[image], self.project)}" if self.dry_run else "")
            for image, count in self.removed.items()
        ]
        if not self.removed and not self.problems:
            lines.append("There was nothing of qprd to remove.")
        lines += self._closing("not removed")
        if self.removed and not self.in_qupath and not self.dry_run:
            lines.append(
                "In QuPath, run groovy/remove_qprd_objects.groovy for the project: it takes out "
                "what was imported there, and the classes that nothing bears any more."
            )
        return lines


def remove(
    project: Project,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> RemoveSummary:
    """Take tiles, contours and slide scores out of the project again, and nothing else.

    Contours whose class a person changed are the person's, and stay. Result files stay too. Without
    a QuPath only the files for its scripts are emptied; what was imported, and classes in the
    project's list, are taken out there.

    Args:
        project: Loses our tiles, contours and slide scores, and nothing of yours.
        images: Names of the only images to clear; empty for all.
        exclude: Names of images to leave out, which outweighs ``images``.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there is no such image, or another command is writing.

    Examples:
        >>> qprd.remove(project, dry_run=True).removed
        {}
    """
    entries = select_entries(project, images, exclude)
    removed: dict[str, int] = {}
    files: dict[str, tuple[Path, ...]] = {}

    def take_out(entry: Entry) -> None:
        own = project.read_predictions(entry)
        if own.tiles or own.annotations or own.metadata or own.unusable:
            report = project.write_predictions(entry, Predictions(tiles=(), contours=()))
            removed[entry.name] = report.replaced
            files[entry.name] = report.files

    change = change_images(
        project,
        entries,
        take_out,
        command="remove",
        doing="removing",
        dry_run=dry_run,
        progress=progress_bars(progress),
    )
    return RemoveSummary(**change, removed=removed, files=files)
