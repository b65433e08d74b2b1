"""``qprd export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qprd.cli.app import app
from qprd.cli.options import Given, JsonOption, expand, settings
from qprd.cli.session import report
from qprd.errors import ExitCode, QprdError
from qprd.settings import PredictConfig


def _unsuitable(options: str, format: str) -> QprdError:
    return QprdError(
        f"{options} of no use with this format.",
        where=f"--format {format}",
        fix="Leave it out, or choose another format.",
        exit_code=ExitCode.USAGE,
    )


@app.command()
@expand
def export(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="PROJECT|BUNDLE",
            help="A project, whose newest bundle is exported, or the folder of a bundle. "
            "Default: the project in this folder.",
            show_default=False,
        ),
    ] = None,
    *,
    format: Annotated[
        Literal["wsinfer", "onnx", "geojson"],
        typer.Option(
            help="wsinfer: a model for QuPath's WSInfer extension and wsinfer run. "
            "onnx: a model in one file (pip install 'qprd\\[onnx]'). "
            "geojson: the contours predicted on one slide, to be dropped on it in QuPath.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The file to write, or the folder for wsinfer. "
            "Default: in PROJECT/qprd/exports, or in this folder if a bundle is named.",
        ),
    ] = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="geojson: include the scored tiles.")
    ] = False,
    given: Annotated[Given, settings(PredictConfig, "images", "exclude", "weights")],
    json: JsonOption = None,
) -> None:
    """Give a model, or the predictions of a slide, to other programs.

    Example: qprd export project.qpproj --format wsinfer
    """
    import qprd

    if format == "geojson":
        if "weights" in given:
            raise _unsuitable("--weights is", format)
        summary = qprd.export_geojson(source or Path(), tiles=tiles, output=output, **given)
    else:
        if given.keys() - {"weights"} or tiles:
            raise _unsuitable("--image, --exclude and --tiles are", format)
        summary = qprd.export_model(source or Path(), format, output=output, **given)
    report(summary, json)
