"""``qprd groovy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import JsonOption
from qprd.cli.session import report


@app.command()
def groovy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the scripts are put.")],
    json: JsonOption = None,
) -> None:
    """Copy the Groovy scripts that run inside QuPath to a folder.

    Example: qprd groovy ~/QuPath/scripts
    """
    from qprd.jobs.groovy import copy_scripts

    report(copy_scripts(folder), json)
