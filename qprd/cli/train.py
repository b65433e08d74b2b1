"""``qprd train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import (
    ConfigOption,
    Given,
    JsonOption,
    LogJsonOption,
    ProjectGroup,
    existing,
    expand,
    settings,
)
from qprd.cli.session import report
from qprd.errors import ExitCode
from qprd.option import PATCHES
from qprd.settings import TrainConfig


@app.command()
@expand
def train(
    project: ProjectGroup,
    given: Annotated[Given, settings(TrainConfig)],
    from_bundle: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Continue from this bundle: its slides keep their splits, and its settings hold "
            "where no option says otherwise. With recipe paper start from its weights.",
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Train on this table of patches (a bundle's patches.csv) instead of sampling.",
            rich_help_panel=PATCHES,
            callback=existing,
        ),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = None,
    log_json: LogJsonOption = None,
) -> None:
    """Train a model on the annotations of a project; writes a bundle to PROJECT/qprd/bundles.

    Example: qprd train project.qpproj --teacher efficientnet_lite0 --normal 300 --tumor 30
    """
    import qprd
    from qprd.api.arguments import training_settings

    with qprd.log_events(log_json, "train"):
        checked = training_settings(config, given, from_bundle)
        with project.open() as opened:
            model = qprd.train(opened, checked, parent=from_bundle, patches=patches)
        assert model.training is not None
        report(model.training, json)
        if model.training.interrupted:
            raise typer.Exit(ExitCode.INTERRUPTED)
