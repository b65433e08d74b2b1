"""Open a project with the backend that is asked for, or with the best there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qprd.checked import Backend
from qprd.errors import ExitCode, QprdError
from qprd.qupath.project import Project


def open_project(
    path: Path,
    *,
    backend: Backend = "auto",
    slides: Sequence[Path] = (),
    annotations: Path | None = None,
) -> tuple[Project, str]:
    """Open a ``.qpproj`` file; the arguments are those of `qprd.open_project`.

    ``auto`` takes paquo where a usable QuPath is found and no folder of annotations was given, else
    exchange.

    Returns:
        The project, and a sentence saying which backend was taken and why.

    Raises:
        QprdError: the project cannot be opened, or not in this way.
    """
    from qprd.qupath.exchange import ExchangeProject

    if backend == "paquo" and annotations is not None:
        raise QprdError(
            "A folder of annotations was given, but paquo takes them from QuPath.",
            fix="Leave out --annotations, or use --backend exchange.",
            exit_code=ExitCode.USAGE,
        )
    # So that faults of the project and its folders show before Java starts.
    project = ExchangeProject(path, slides=slides, annotations=annotations)
    if backend == "paquo":
        return _open_paquo(path, slides, "as asked for")
    if backend == "exchange":
        why = "as asked for"
    elif annotations is not None:
        why = "because a folder of annotations was given"
    else:
        problem = _qupath_problem()
        if problem is None:
            return _open_paquo(path, slides, "because a QuPath was found")
        why = f"because {problem}"
    return project, f"Using the exchange backend (GeoJSON files, no QuPath) {why}."


def _open_paquo(path: Path, slides: Sequence[Path], why: str) -> tuple[Project, str]:
    from qprd.qupath.paquo_backend import PaquoProject

    project = PaquoProject(path, slides=slides)
    return project, f"Using the paquo backend (QuPath {project.version}) {why}."


def _qupath_problem() -> str | None:
    """Why no QuPath can be used, None if one runs now."""
    from qprd.qupath.java import start_qupath

    try:
        start_qupath()
    except QprdError as error:
        return error.problem.rstrip(".")
    return None
