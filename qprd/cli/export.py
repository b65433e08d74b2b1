"""``qprd export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qprd.cli.app import app
from qprd.cli.options import Given, JsonOption, ProjectOptions, expand, settings
from qprd.cli.session import report
from qprd.errors import ExitCode, QprdError
from qprd.settings import PredictConfig


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
    given: Annotated[Given, settings(PredictConfig, "images", "weights")],
    json: JsonOption = None,
) -> None:
    """Give a model, or the predictions of a slide, to other programs.

    Example: qprd export project.qpproj --format wsinfer
    """
    from qprd.files.layout import find_project
    from qprd.jobs.export import export_bundle, export_geojson, export_newest, is_bundle

    images, weights = given["images"], given["weights"] and Path(given["weights"])
    if format == "geojson":
        if source is not None and is_bundle(source):
            raise QprdError(
                "A bundle holds no predictions.",
                where=str(source),
                fix="Name the project: qprd export PROJECT --format geojson",
                exit_code=ExitCode.USAGE,
            )
        with ProjectOptions(source, "exchange").open() as project:
            summary = export_geojson(project, images=images, tiles=tiles, output=output)
    elif images or tiles:
        raise QprdError(
            "--image and --tiles are for predictions.",
            where=f"--format {format}",
            fix="Leave them out, or use --format geojson.",
            exit_code=ExitCode.USAGE,
        )
    elif source is not None and is_bundle(source):
        summary = export_bundle(source, format, output=output, weights=weights)
    else:
        summary = export_newest(find_project(source), format, output=output, weights=weights)
    report(summary, json)
