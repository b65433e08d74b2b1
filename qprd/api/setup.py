"""Around the work: doctor, status, teachers, the demo, the scripts for QuPath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.api.arguments import names_of, path_of
from qprd.checked import Backend
from qprd.given_settings import train_config
from qprd.progress import Progress, progress_bars

if TYPE_CHECKING:
    from qprd.jobs.demo import DemoSummary
    from qprd.jobs.doctor.checks import Examination
    from qprd.jobs.groovy import ScriptCopies
    from qprd.jobs.status import ProjectStatus
    from qprd.jobs.teachers import TeacherList
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


def versions() -> dict[str, str]:
    """Find the versions of qprd, Python, PyTorch, OpenSlide and QuPath, without loading them.

    Examples:
        >>> list(qprd.versions())
        ['qprd', 'Python', 'PyTorch', 'OpenSlide', 'QuPath']
    """
    from qprd.jobs.versions import found_versions

    return found_versions()


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


def list_teachers(
    names: Sequence[str] = (), *, measure: bool = False, device: str = "auto"
) -> TeacherList:
    """List the networks that can be a teacher: size, license, and whether they are at hand.

    Args:
        names: Those to list; empty for all.
        measure: Time them: those named, else those at hand.
        device: Where to measure.

    Raises:
        QprdError: a name is not known.

    Examples:
        >>> [row.license for row in qprd.list_teachers(["h-optimus-0"]).teachers]
        ['Apache-2.0']
    """
    from qprd.jobs import teachers

    return teachers.list_teachers(names_of(names), measure=measure, device=device)


def draw_demo(
    folder: str | Path,
    *,
    size_px: tuple[int, int] = (2000, 2500),
    seed: int = 0,
    progress: bool | Progress = True,
) -> Path:
    """Draw five synthetic slides, and make a QuPath project of them, annotated on three.

    Args:
        folder: New or empty.
        size_px: Width and height of a slide, at 0.5 um/px.
        seed: Draws other slides.
        progress: False shows no bars.

    Returns:
        The project file.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[timm]`` is not installed.

    Examples:
        >>> path = qprd.draw_demo("another demo", size_px=(500, 500))
        >>> path.name
        'project.qpproj'
    """
    from qprd.jobs.demo import draw_project

    bars = progress_bars(progress)
    return draw_project(Path(folder), size_px=size_px, seed=seed, progress=bars)[0]


def run_demo(
    folder: str | Path,
    *,
    backend: Backend = "auto",
    seed: int = 0,
    progress: bool | Progress = True,
) -> DemoSummary:
    """Draw the demo's project, train on it, predict and write back, as ``qprd demo`` does.

    Args:
        folder: New or empty.
        backend: As for `open_project`.
        seed: Draws other slides.
        progress: False shows no bars.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[timm]`` is not installed.
    """
    from qprd.jobs import demo

    return demo.run_demo(Path(folder), backend=backend, seed=seed, progress=progress_bars(progress))


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
