"""``qprd write-back``."""

from __future__ import annotations

from typing import Annotated

from qprd.cli.app import app
from qprd.cli.options import DryRunOption, Given, JsonOption, ProjectGroup, expand, settings
from qprd.cli.session import report
from qprd.settings import PredictConfig


@app.command()
@expand
def write_back(
    project: ProjectGroup,
    given: Annotated[Given, settings(PredictConfig, "images", "exclude")],
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Put results that are already in PROJECT/qprd/results into the project, without predicting.

    Example: qprd write-back project.qpproj --backend paquo
    """
    import qprd

    with project.open() as opened:
        summary = qprd.write_back(opened, dry_run=dry_run, **given)
    report(summary, json)
