"""``qprd groovy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import JsonOption


@app.command()
def groovy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the scripts are put.")],
    json: JsonOption = None,
) -> None:
    """Copy the Groovy scripts that run inside QuPath to a folder.

    Example: qprd groovy ~/QuPath/scripts
    """
    import qprd
    from qprd.jobs.reporting import write_json_object

    scripts = qprd.copy_scripts(folder)
    write_json_object(json, {"scripts": scripts})
    for path in scripts:
        typer.echo(path)
