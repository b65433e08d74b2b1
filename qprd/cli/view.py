"""``qprd view``."""

from __future__ import annotations

from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import Given, ProjectGroup, expand, settings
from qprd.settings import PredictConfig


@app.command()
@expand
def view(
    project: ProjectGroup,
    given: Annotated[Given, settings(PredictConfig, "assume_mpp")],
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="Listen at this port; 0 takes a free one."
        ),
    ] = 8765,
) -> None:
    """Show slides, heatmaps and contours in a browser of this computer, and review them there.

    Example: qprd view project.qpproj
    """
    import qprd

    with project.open() as opened:
        qprd.view_results(opened, port=port, announce=typer.echo, **given)
