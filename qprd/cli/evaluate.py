"""``qprd evaluate``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from qprd.cli.app import app
from qprd.cli.options import BundleOption, Given, JsonOption, ProjectGroup, expand, settings
from qprd.cli.session import report
from qprd.settings import TrainConfig


@app.command()
@expand
def evaluate(
    project: ProjectGroup,
    given: Annotated[
        Given,
        settings(TrainConfig, "images", "exclude", "assume_mpp", "unannotated_normal"),
    ],
    split: Annotated[
        Literal["test", "val", "all"] | None,
        typer.Option(
            help="Slides to measure on: by entry metadata 'split', else by how the model used "
            "them. Only with all are slides included that the model was trained on. Default: "
            "test, or val if there are no test slides.",
            show_default=False,
        ),
    ] = None,
    bundle: BundleOption = None,
    json: JsonOption = None,
) -> None:
    """Compare results with annotations; writes PROJECT/qprd/results/evaluation.html.

    Example: qprd evaluate --split test --json figures.json
    """
    import qprd

    with project.open() as opened:
        summary = qprd.evaluate(opened, bundle, split=split, **given)
    report(summary, json, summary.report())
