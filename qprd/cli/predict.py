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
    ProjectGroup,
    expand,
    settings,
)
from qprd.cli.session import exit_for, report
from qprd.settings import PredictConfig, predict_config


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
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Score the slides of a project; writes PROJECT/qprd/results and pictures of each slide.

    Example: qprd predict project.qpproj --write-back --uncertain 20
    """
    from qprd.jobs.predict.job import predict_project
    from qprd.progress import TerminalProgress

    chosen = predict_config(given, config)
    with project.open() as opened:
        summary = predict_project(
            opened, chosen, bundle=bundle, write_back=write_back, progress=TerminalProgress()
        )
    report(summary, json)
    exit_for(summary.failed)
