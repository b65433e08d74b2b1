"""``qprd write-back`` and ``qprd remove``: results into the project, and out of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.predictions import Predictions
from qprd.progress import Progress
from qprd.qupath.entry_slides import frame_of, require_same_frame, select_entries
from qprd.qupath.project import Entry, Project, WriteReport
from qprd.results.folder import load_predictions, load_slide_result


@dataclass(frozen=True)
class WriteBackSummary:
    """What a write-back did.

    Attributes:
        project: The project file.
        backend: Which of the two wrote.
        written: A report for each entry.
        problems: Image name and reason of each that could not be written.
        notes: What else the user should know.
        backup: Where the files are as they were before; None if none of them changed.
        images: Names of the images written, by entry id.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
    written: tuple[WriteReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    backup: Path | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def failed(self) -> int:
        """Entries that could not be written."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        replaced = sum(report.replaced for report in self.written)
        lines = [
            f"{'Would write' if self.dry_run else 'Wrote'} {told_objects(*self.written)} "
            f"to {len(self.written)} images"
            + (f", replacing {replaced} objects of an earlier run" if replaced else "")
            + f" ({self.backend})."
        ]
        if self.dry_run:
            lines += [
                f"{self.images[report.entry_id]}: {told_objects(report)} for {report.replaced} "
                "objects; " + changed_files(report.files, self.project)
                for report in self.written
            ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not written: {problem}" for problem in self.problems]
        if self.dry_run:
            return [*lines, NOTHING_TOUCHED]
        if self.backup is not None:
            lines.append(kept_in(self.backup, self.project))
        if self.backend == "paquo" and self.written:
            lines.append(
                "If QuPath has one of these images open: File > Reload data, and do not save "
                "before, or QuPath undoes the write-back."
            )
        if self.backend == "exchange" and self.written:
            lines.append(
                "In QuPath, run groovy/import_predictions.groovy for the project to see them "
                "(qprd groovy DIR puts the scripts there)."
            )
        return lines


#: The last line of a dry run.
NOTHING_TOUCHED = "This was a dry run: nothing was touched."


def told_objects(*reports: WriteReport) -> str:
    """How many objects of each kind are new, in words."""
    tiles = sum(report.tiles for report in reports)
    contours = sum(report.contours for report in reports)
    review = sum(report.review for report in reports)
    if review:
        return f"{tiles} tiles, {contours} contours and {review} regions to review"
    return f"{tiles} tiles and {contours} contours"


def changed_files(files: Sequence[Path], project: Path, verb: str = "changes") -> str:
    """Which files change, by their paths inside the project."""
    root = project.parent.resolve()
    names = sorted(path.relative_to(root).as_posix() for path in files)
    return f"{verb} {', '.join(names) or 'no file'}"


def kept_in(backup: Path, project: Path) -> str:
    """Where the files are as they were, and how to get back to them."""
    where = backup.relative_to(project.parent.resolve())
    return f"The files as they were before are in {where}; qprd undo takes this back."


def write_back_project(
    project: Project, *, images: Sequence[str] = (), dry_run: bool = False, progress: Progress
) -> WriteBackSummary:
    """Write the results of the named images, or of all that have some, into the project.

    An entry that cannot be written is left as it was and reported, and the others go on.

    Args:
        project: The project.
        images: Names of images; empty for all that have results.
        dry_run: Say what would change, and touch nothing.
        progress: Shows what takes long.

    Raises:
        QprdError: there are no results at all.
    """
    layout = ProjectLayout(project.path)
    entries = [
        entry
        for entry in select_entries(project, images)
        if images or layout.result(entry.id).is_dir()
    ]
    if not entries:
        raise QprdError(
            "There are no results to write back.",
            where=str(layout.results),
            fix="Run qprd predict first.",
        )
    return write_back_entries(
        project, entries, command="write-back", dry_run=dry_run, progress=progress
    )


def write_back_entries(
    project: Project,
    entries: Sequence[Entry],
    *,
    command: str,
    dry_run: bool = False,
    progress: Progress,
) -> WriteBackSummary:
    """Write the results of these entries into the project.

    An entry that cannot be written is left as it was and reported, and the others go on.

    Raises:
        QprdError: another command is writing, or nothing can be written there at all.
    """
    layout = ProjectLayout(project.path)
    written: list[WriteReport] = []
    problems: list[str] = []
    with (
        project.writing(command, dry_run=dry_run) as session,
        progress.task("writing back", len(entries)) as task,
    ):
        for entry in entries:
            try:
                # Results of a slide that is gone, or another one by now, cannot be vouched for.
                frame = frame_of(entry)
                folder = layout.result(entry.id)
                require_same_frame(entry, load_slide_result(folder).frame, frame)
                predictions = load_predictions(folder)
                written.append(project.write_predictions(entry, predictions))
            except QprdError as error:
                problems.append(error.told_of(entry.name))
            task.advance()
    return WriteBackSummary(
        project=project.path,
        backend=project.backend,
        written=tuple(written),
        problems=tuple(problems),
        notes=session.notes,
        backup=session.backup,
        images={entry.id: entry.name for entry in entries},
        dry_run=dry_run,
    )


@dataclass(frozen=True)
class RemoveSummary:
    """What a removal did.

    Attributes:
        project: The project file.
        backend: Which of the two removed.
        removed: Number of objects by image name.
        problems: Image name and reason of each image where nothing could be removed.
        notes: What else the user should know.
        backup: Where the files are as they were before; None if none of them changed.
        files: Which files changed, or would change, by image name.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
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
            lines.append(kept_in(self.backup, self.project))
        if self.backend == "exchange" and self.removed:
            lines.append(
                "In QuPath, run groovy/import_predictions.groovy for the project: it takes out "
                "what an earlier run of it brought in."
            )
        return lines


def remove_from_project(
    project: Project, *, images: Sequence[str] = (), dry_run: bool = False, progress: Progress
) -> RemoveSummary:
    """Take tiles, contours and slide scores out of the project again, and nothing else.

    Contours whose class a person changed are the person's, and stay. Result files stay too.

    Args:
        project: The project.
        images: Names of images; empty for all.
        dry_run: Say what would change, and touch nothing.
        progress: Shows what takes long.

    Raises:
        QprdError: there is no such image, or another command is writing.
    """
    entries = select_entries(project, images)
    removed: dict[str, int] = {}
    files: dict[str, tuple[Path, ...]] = {}
    problems: list[str] = []
    with (
        project.writing("remove", dry_run=dry_run) as session,
        progress.task("removing", len(entries)) as task,
    ):
        for entry in entries:
            try:
                own = project.read_predictions(entry)
                if own.tiles or own.regions or own.metadata:
                    report = project.write_predictions(entry, Predictions(tiles=(), contours=()))
                    removed[entry.name] = report.replaced
                    files[entry.name] = report.files
            except QprdError as error:
                problems.append(error.told_of(entry.name))
            task.advance()
    return RemoveSummary(
        project=project.path,
        backend=project.backend,
        removed=removed,
        problems=tuple(problems),
        notes=session.notes,
        backup=session.backup,
        files=files,
        dry_run=dry_run,
    )
