"""``qprd predict``."""

from __future__ import annotations

from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import (
    BundleOption,
    ConfigOption,
    Given,
    JsonOption,
    LogJsonOption,
    ProjectGroup,
    expand,
    settings,
)
from qprd.cli.session import report
from qprd.settings import PredictConfig


@app.command()
@expand
def predict(
    project: ProjectGroup,
    given: Annotated[Given, settings(PredictConfig)],
    bundle: BundleOption = None,
    write_back: Annotated[
        bool,
        typer.Option("--write-back", help="Put tiles, contours and slide scores into the project."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Score slides again whose results are up to date."),
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = None,
    log_json: LogJsonOption = None,
) -> None:
    """Score the slides of a project; writes PROJECT/qprd/results and pictures of each slide.

    Example: qprd predict project.qpproj --write-back --uncertain 20
    """
    import qprd
    from qprd.api.arguments import prediction_settings

    with qprd.log_events(log_json, "predict"):
        checked = prediction_settings(config, given)
        with project.open() as opened:
            summary = qprd.predict(
                opened, bundle, write_back=write_back, force=force, config=checked
            )
        report(summary, json)
