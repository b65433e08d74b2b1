"""``qprd teachers``."""

from __future__ import annotations

from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import Given, JsonOption, expand, settings
from qprd.cli.session import report
from qprd.settings import TrainConfig


@app.command()
@expand
def teachers(
    given: Annotated[Given, settings(TrainConfig, "device")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="List only these.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure how many patches a second they take on this machine: those named, else "
            "those at hand.",
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """List the networks that can be a teacher: size, license, and whether they are at hand.

    Example: qprd teachers --measure
    """
    import qprd

    report(qprd.list_teachers(names or (), measure=measure, **given), json)
