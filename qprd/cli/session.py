"""What every command does before and after its job: open the project, report, exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qprd.checked import Backend
from qprd.errors import ExitCode

if TYPE_CHECKING:
    from qprd.jobs.reporting import Summary
    from qprd.qupath.project import Project


def as_text(path: Path | None) -> str | None:
    """The path as the settings want it."""
    return None if path is None else str(path)


def opened_project(
    project: Path | None,
    backend: Backend,
    slides: list[Path] | None,
    annotations: Path | None = None,
) -> Project:
    """Open the project and say which backend was taken."""
    from qprd.files.layout import find_project
    from qprd.qupath.opening import open_project

    opened, how = open_project(
        find_project(project), backend=backend, slides=slides or (), annotations=annotations
    )
    typer.echo(how, err=True)
    return opened


def report(summary: Summary, json: Path | None) -> None:
    """Print what a job did; also write it to ``json``, where that is given."""
    from qprd.jobs.reporting import print_summary, write_json

    # What took long to find is shown, even if the file cannot be written.
    print_summary(summary)
    write_json(json, summary)


def exit_for(failed: int) -> None:
    """Exit with a code that is not 0 where something failed."""
    if failed:
        raise typer.Exit(ExitCode.FAILED)
