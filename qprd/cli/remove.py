"""``qprd remove``."""

from __future__ import annotations

from typing import Annotated

from qprd.cli.app import app
from qprd.cli.options import DryRunOption, Given, JsonOption, ProjectGroup, expand, settings
from qprd.cli.session import report
from qprd.settings import PredictConfig


@app.command()
@expand
def remove(
    project: ProjectGroup,
    given: Annotated[Given, settings(PredictConfig, "images", "exclude")],
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Take everything that qprd wrote out of the project again; result files stay.

    Example: qprd remove project.qpproj --image colon_2.tif
    """
    import qprd

    with project.open() as opened:
        summary = qprd.remove(opened, dry_run=dry_run, **given)
    report(summary, json)
