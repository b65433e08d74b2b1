"""The job of ``qprd doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qprd.checked import Backend
from qprd.errors import QprdError
from qprd.files.layout import find_project
from qprd.given_settings import train_config
from qprd.jobs.doctor.checks import Examination, failure, passed
from qprd.jobs.doctor.installation import check_installation
from qprd.jobs.doctor.project import check_project
from qprd.progress import Progress, progress_bars
from qprd.qupath.opening import open_project
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
    config = train_config(
        {
            "images": images,
            "exclude": exclude,
            "assume_mpp": assume_mpp,
            "tumor_class": tumor_class,
            "normal_class": normal_class,
            "tissue_class": tissue_class,
        }
    )
    bars = progress_bars(progress)
    checks = list(check_installation())
    try:
        if project is not None and not isinstance(project, (str, Path)):
            checks.append(passed("project", f"{project.path} ({project.backend})"))
            return Examination((*checks, *check_project(project, config, bars)))
        try:
            path = find_project(None if project is None else Path(project))
        except QprdError:
            # Outside a project the installation alone is what was asked about.
            if project is None and not any(Path().glob("*.qpproj")):
                return Examination(tuple(checks))
            raise
        folders = [slides] if isinstance(slides, (str, Path)) else slides
        opened, how = open_project(
            path,
            backend=backend,
            slides=[Path(folder) for folder in folders],
            annotations=None if annotations is None else Path(annotations),
        )
        with opened:
            checks.append(passed("project", f"{path}; {how}"))
            checks += check_project(opened, config, bars)
    except QprdError as error:
        checks.append(failure("project", error))
    return Examination(tuple(checks))
