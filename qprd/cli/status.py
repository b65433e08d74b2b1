"""``qprd status``."""

from __future__ import annotations

from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import Given, JsonOption, ProjectGroup, expand, settings
from qprd.cli.session import report
from qprd.settings import TrainConfig


@app.command()
@expand
def status(
    project: ProjectGroup,
    given: Annotated[Given, settings(TrainConfig, "tumor_class", "normal_class")],
    drawn: Annotated[
        bool,
        typer.Option(
            "--drawn",
            help="With --json or --events: also count what is drawn on each image, which reads all "
            "annotations.",
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Show trainings, bundles and results of a project, and what was left to do or left behind.

    Example: qprd status project.qpproj
    """
    import qprd

    with project.open() as opened:
        summary = qprd.status(opened, drawn=drawn, **given)
    report(summary, json)
