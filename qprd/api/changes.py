"""What changes a project: writing results into it, taking them out, importing annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.api.arguments import names_of
from qprd.progress import Progress, progress_bars
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.jobs.import_asap import ImportSummary
    from qprd.jobs.remove import RemoveSummary
    from qprd.jobs.undo import UndoSummary
    from qprd.jobs.write_back import WriteBackSummary
    from qprd.qupath.project import Project


def write_back(
    project: Project,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> WriteBackSummary:
    """Put results that were predicted before into the project; `undo` takes that back.

    An image that cannot be written stays as it was and is reported, and the others go on.

    Args:
        project: Gets tiles, contours and slide scores; nothing else in it changes.
        images: Names of the only images to write; empty for all that have results.
        exclude: Names of images to leave out, which outweighs ``images``.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there are no results, or another command is writing.

    Examples:
        >>> len(qprd.write_back(project).written)
        5
    """
    from qprd.jobs.write_back import write_back_project

    return write_back_project(
        project,
        images=names_of(images),
        exclude=names_of(exclude),
        dry_run=dry_run,
        progress=progress_bars(progress),
    )


def remove(
    project: Project,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> RemoveSummary:
    """Take everything that qprd wrote out of the project again; result files stay.

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
    from qprd.jobs.remove import remove_from_project

    return remove_from_project(
        project,
        images=names_of(images),
        exclude=names_of(exclude),
        dry_run=dry_run,
        progress=progress_bars(progress),
    )


def undo(
    project: Project,
    *,
    everything: bool = False,
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> UndoSummary:
    """Take back the last write-back, removal or import: files become what they were.

    Where you have worked on an image since, only what is qprd's goes back.

    Args:
        project: The project.
        everything: Take back every command whose backup is kept.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there is nothing to take back, or another command is writing.

    Examples:
        >>> written = qprd.write_back(project, images="demo_4.tif")
        >>> undone = qprd.undo(project)
        >>> [command.command for command in undone.commands]
        ['write-back']
    """
    from qprd.jobs.undo import undo_project

    return undo_project(
        project, everything=everything, dry_run=dry_run, progress=progress_bars(progress)
    )


def import_asap(
    project: Project,
    file: str | Path,
    *,
    image: str,
    tumor_class: str | None = None,
    dry_run: bool = False,
) -> ImportSummary:
    """Turn tumor drawn in ASAP into annotations of a project.

    Args:
        project: The project.
        file: ASAP's ``.xml``, or a ``.json`` of Camelyon16 annotations.
        image: Name of the image that was annotated.
        tumor_class: The class that the annotations get; None for the one of `TrainConfig`.
        dry_run: Say what would change, and touch nothing.

    Raises:
        QprdError: the file has no tumor or cannot be read, there is no such image, or nothing can
            be written.
    """
    from qprd.jobs import import_asap as job

    name = TrainConfig().tumor_class[0] if tumor_class is None else tumor_class
    return job.import_asap(project, Path(file), image=image, tumor_class=name, dry_run=dry_run)
