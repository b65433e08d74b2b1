"""``qprd write-back`` and ``qprd remove``: results into the project, and out of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import QprdError
from qprd.jobs.slides import select_entries
from qprd.layout import ProjectLayout
from qprd.progress import Progress
from qprd.qupath.project import Entry, Project, WriteReport
from qprd.results import Predictions
from qprd.results_folder import load_predictions


@dataclass(frozen=True)
class WriteBackSummary:
    """What a write-back did.

    Attributes:
        project: The project file.
        backend: Which of the two wrote.
        written: A report for each entry.
        problems: Image name and reason of each that could not be written.
    """

    project: Path
    backend: str
    written: tuple[WriteReport, ...]
    problems: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Entries that could not be written."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        tiles = sum(report.tiles for report in self.written)
        contours = sum(report.contours for report in self.written)
        replaced = sum(report.replaced for report in self.written)
        lines = [
            f"Wrote {tiles} tiles and {contours} contours to {len(self.written)} images"
            + (f", replacing {replaced} objects of an earlier run" if replaced else "")
            + f" ({self.backend})."
        ]
        lines += [f"not written: {problem}" for problem in self.problems]
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


def write_back_project(
    project: Project, *, images: Sequence[str] = (), progress: Progress
) -> WriteBackSummary:
    """Write the results of the named images, or of all that have some, into the project.

    An entry that cannot be written is left as it was and reported, and the others go on.

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
    return write_back_entries(project, entries, progress=progress)


def write_back_entries(
    project: Project, entries: Sequence[Entry], *, progress: Progress
) -> WriteBackSummary:
    """Write the results of these entries into the project.

    An entry that cannot be written is left as it was and reported, and the others go on.
    """
    layout = ProjectLayout(project.path)
    written: list[WriteReport] = []
    problems: list[str] = []
    with progress.task("writing back", len(entries)) as task:
        for entry in entries:
            try:
                predictions = load_predictions(layout.result(entry.id))
                written.append(project.write_predictions(entry, predictions))
            except QprdError as error:
                problems.append(error.told_of(entry.name))
            task.advance()
    return WriteBackSummary(project.path, project.backend, tuple(written), tuple(problems))


@dataclass(frozen=True)
class RemoveSummary:
    """What a removal did.

    Attributes:
        project: The project file.
        backend: Which of the two removed.
        removed: Number of objects by image name.
        problems: Image name and reason of each image where nothing could be removed.
    """

    project: Path
    backend: str
    removed: Mapping[str, int]
    problems: tuple[str, ...]

    @property
    def failed(self) -> int:
        """Images where nothing could be removed."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [
            f"{image}: {count} objects of qprd removed" for image, count in self.removed.items()
        ]
        if not self.removed and not self.problems:
            lines.append("There was nothing of qprd to remove.")
        lines += [f"not removed: {problem}" for problem in self.problems]
        if self.backend == "exchange" and self.removed:
            lines.append(
                "In QuPath, run groovy/import_predictions.groovy for the project: it takes out "
                "what an earlier run of it brought in."
            )
        return lines


def remove_from_project(
    project: Project, *, images: Sequence[str] = (), progress: Progress
) -> RemoveSummary:
    """Take tiles, contours and slide scores out of the project again, and nothing else.

    Contours whose class a person changed are the person's, and stay. Result files stay too.

    Raises:
        QprdError: there is no such image.
    """
    entries = select_entries(project, images)
    removed: dict[str, int] = {}
    problems: list[str] = []
    with progress.task("removing", len(entries)) as task:
        for entry in entries:
            try:
                own = project.read_predictions(entry)
                if own.tiles or own.contours or own.metadata:
                    report = project.write_predictions(entry, Predictions(tiles=(), contours=()))
                    removed[entry.name] = report.replaced
            except QprdError as error:
                problems.append(error.told_of(entry.name))
            task.advance()
    return RemoveSummary(project.path, project.backend, removed, tuple(problems))
