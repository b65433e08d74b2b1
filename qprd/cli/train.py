"""``qprd train``."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
from qprd.option import PATCHES
from qprd.ranks import this_rank
from qprd.settings import TrainConfig

_RUN = re.compile(r"\d{8}-\d{6}-")


class _OptionalRun(TyperCommand):
    """Takes ``--resume`` with and without the name of a run, which begins with its time."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [
            "--resume=" if word == "--resume" and not _RUN.match(following) else word
            for word, following in zip(args, [*args, ""][1:], strict=True)
        ]
        return super().parse_args(ctx, words)


@app.command(cls=_OptionalRun)
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
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with a training that was stopped: the newest, or this one. It has its "
            "settings and its patches; only --device, --devices and --weights may be others.",
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="With --resume: train no more, and make a bundle of the epochs that are finished.",
        ),
    ] = False,
    log_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write curves and pictures of the training to this folder for TensorBoard; needs "
            "qprd\\[log].",
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

    # The other processes of a training say nothing, do not read the project, and need no QuPath.
    leads = this_rank().is_first
    if not leads:
        logging.getLogger("qprd").setLevel(logging.WARNING)
    resumes = resume is not None or finish
    with qprd.log_events(log_json if leads else None, "train"):
        # A mistake in the settings is said before the project is opened.
        checked = config if resumes else training_settings(config, given, from_bundle)
        with (project if leads else replace(project, backend="exchange")).open() as opened:
            model = qprd.train(
                opened,
                checked,
                parent=from_bundle,
                patches=patches,
                resume=resumes and (resume or True),
                finish=finish,
                log_dir=log_dir,
                **(given if resumes else {}),
            )
        if model.training is not None:
            report(model.training, json)
