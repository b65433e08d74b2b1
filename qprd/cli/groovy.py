"""``qprd groovy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import JsonOption
from qprd.cli.session import report
from qprd.errors import ExitCode, QprdError


@app.command()
def groovy(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where the scripts are put.", show_default=False),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            help="Put them where QuPath lists them: into the user folder of its preferences.",
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Copy the Groovy scripts that run inside QuPath to a folder, or to where QuPath lists them.

    A script that you changed there is kept under another name.

    Example: qprd groovy --install
    """
    import qprd

    if install == (folder is not None):
        raise QprdError(
            "The folder is not clear." if install else "Where the scripts go is not clear.",
            fix="Name a folder, or give --install alone.",
            exit_code=ExitCode.USAGE,
        )
    report(qprd.copy_scripts(folder), json)
