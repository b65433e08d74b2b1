"""Around the work: doctor, status, the scripts for QuPath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.api.arguments import path_of
from qprd.checked import Backend
from qprd.given_settings import train_config
from qprd.names import names_of
from qprd.progress import Progress, progress_bars

if TYPE_CHECKING:
    from qprd.jobs.doctor.checks import Examination
    from qprd.jobs.groovy import ScriptCopies
    from qprd.jobs.status import ProjectStatus
    from qprd.qupath.project import Project


def doctor(
    project: Project | str | Path | None = None,
    *,
    backend: Backend = "auto",
    slides: str | Path | Sequence[str | Path] = (),
    annotations: str | Path | None = None,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume_mpp: float | None = None,
    tumor_class: Sequence[str] = (),
    normal_class: Sequence[str] = (),
    tissue_class: Sequence[str] = (),
    progress: bool | Progress = True,
) -> Examination:
    """Check this installation, and a project if one is given: findings and what to do about them.

    Args:
        project: An open project, or a place as for `open_project`; None takes the project of the
            current folder, if there is one.
        backend: As for `open_project`, as are the next two.
        slides: Folders of slides that have moved.
        annotations: A folder of GeoJSON annotations.
        images: Names of the only images to check; empty for all.
        exclude: Names of images to leave out, which outweighs ``images``.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.
        tumor_class: Classes that mean tumor; empty for those of `TrainConfig`.
        normal_class: Classes that mean normal tissue; empty for those of `TrainConfig`.
        tissue_class: Classes that outline tissue.
        progress: False shows no bars.

    Examples:
        >>> qprd.doctor("demo/project").failed
        0
    """
    from qprd.jobs.doctor.job import examine

    folders = [slides] if isinstance(slides, (str, Path)) else slides
    config = {
        "images": names_of(images),
        "exclude": names_of(exclude),
        "assume_mpp": assume_mpp,
        "tumor_class": names_of(tumor_class),
        "normal_class": names_of(normal_class),
        "tissue_class": names_of(tissue_class),
    }
    return examine(
        Path(project) if isinstance(project, str) else project,
        train_config(config),
        backend=backend,
        slides=[Path(folder) for folder in folders],
        annotations=path_of(annotations),
        progress=progress_bars(progress),
    )


def status(
    project: Project,
    *,
    drawn: bool = False,
    tumor_class: Sequence[str] = (),
    normal_class: Sequence[str] = (),
    progress: bool | Progress = True,
) -> ProjectStatus:
    """Find out which bundles and results a project has, and what commands left in it.

    Args:
        project: Only read.
        drawn: Also count what is drawn on each image, which reads all annotations.
        tumor_class: Classes that mean tumor; empty for those of `TrainConfig`.
        normal_class: Classes that mean normal tissue; empty for those of `TrainConfig`.
        progress: False shows no bars.

    Examples:
        >>> qprd.status(project).results[0].image
        'demo_1.tif'
    """
    from qprd.jobs.status import project_status
    from qprd.sampling.classes import Classes

    classes = {"tumor_class": names_of(tumor_class), "normal_class": names_of(normal_class)}
    return project_status(
        project,
        drawn=Classes.of(train_config(classes)) if drawn else None,
        progress=progress_bars(progress),
    )


def copy_scripts(folder: str | Path | None = None) -> ScriptCopies:
    """Copy the Groovy scripts that run inside QuPath.

    Args:
        folder: Made if need be; earlier copies are replaced, and kept under another name where a
            person has changed them. None takes the folder in which QuPath lists user scripts.

    Raises:
        QprdError: the folder cannot be written, or QuPath's is not known.

    Examples:
        >>> [path.name for path in qprd.copy_scripts("scripts").scripts][0]
        'export_annotations.groovy'
    """
    from qprd.jobs import groovy

    return groovy.copy_scripts(path_of(folder))
