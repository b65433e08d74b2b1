"""``qprd export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qprd.cli.app import app
from qprd.cli.options import ImageOption, JsonOption, WeightsOption
from qprd.cli.session import opened_project, report
from qprd.errors import ExitCode, QprdError


@app.command("export")
def export_command(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PROJECT|BUNDLE]",
            help="A project, whose newest bundle is exported, or the folder of a bundle. "
            "Default: the project of this folder.",
            show_default=False,
        ),
    ] = None,
    *,
    as_what: Annotated[
        Literal["wsinfer", "onnx", "geojson"],
        typer.Option(
            "--format",
            help="wsinfer: a model for QuPath's WSInfer extension and wsinfer run. "
            "onnx: a model in one file (pip install 'qprd\\[onnx]'). "
            "geojson: the contours predicted on one slide, to be dropped on it in QuPath.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The file to write, of wsinfer the folder. "
            "Default: in PROJECT/qprd/exports, or in this folder if a bundle is named.",
        ),
    ] = None,
    image: ImageOption = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="geojson: with the scored tiles, not contours alone.")
    ] = False,
    weights: WeightsOption = None,
    json: JsonOption = None,
) -> None:
    """Give a model, or the predictions of a slide, to other programs.

    Example: qprd export project.qpproj --format wsinfer
    """
    from qprd.files.layout import find_project
    from qprd.jobs.export import export_bundle, export_geojson, export_newest, is_bundle

    if as_what == "geojson":
        if place is not None and is_bundle(place):
            raise QprdError(
                "A bundle holds no predictions.",
                where=str(place),
                fix="Name the project: qprd export PROJECT --format geojson",
                exit_code=ExitCode.USAGE,
            )
        with opened_project(place, "exchange", None) as project:
            summary = export_geojson(project, images=image or (), tiles=tiles, output=output)
    elif image or tiles:
        raise QprdError(
            "--image and --tiles are for predictions.",
            where=f"--format {as_what}",
            fix="Leave them out, or take --format geojson.",
            exit_code=ExitCode.USAGE,
        )
    elif place is not None and is_bundle(place):
        summary = export_bundle(place, as_what, output=output, weights=weights)
    else:
        summary = export_newest(find_project(place), as_what, output=output, weights=weights)
    report(summary, json)
