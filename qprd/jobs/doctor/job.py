"""The job of ``qprd doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qprd.checked import Backend
from qprd.errors import QprdError
from qprd.files.layout import find_project
from qprd.jobs.doctor.checks import Examination, failure, passed
from qprd.jobs.doctor.installation import check_installation
from qprd.jobs.doctor.project import check_project
from qprd.progress import Progress
from qprd.qupath.opening import open_project
from qprd.qupath.project import Project
from qprd.settings import TrainConfig


def examine(
    project: Project | Path | None,
    config: TrainConfig,
    *,
    backend: Backend,
    slides: Sequence[Path],
    annotations: Path | None,
    progress: Progress,
) -> Examination:
    """Check the installation, and a project if one is named or lies in the current folder.

    The arguments are those of `qprd.doctor`; the settings say which images are checked, and which
    classes are looked for.
    """
    checks = list(check_installation())
    try:
        if project is not None and not isinstance(project, Path):
            checks.append(passed("project", f"{project.path} ({project.backend})"))
            return Examination((*checks, *check_project(project, config, progress)))
        try:
            path = find_project(project)
        except QprdError:
            # Outside a project the installation alone is what was asked about.
            if project is None and not any(Path().glob("*.qpproj")):
                return Examination(tuple(checks))
            raise
        opened, how = open_project(path, backend=backend, slides=slides, annotations=annotations)
        with opened:
            checks.append(passed("project", f"{path}; {how}"))
            checks += check_project(opened, config, progress)
    except QprdError as error:
        checks.append(failure("project", error))
    return Examination(tuple(checks))
