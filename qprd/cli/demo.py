"""``qprd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import BackendOption, JsonOption
from qprd.cli.session import report


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    backend: BackendOption = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Draws other slides.")] = 0,
    json: JsonOption = None,
) -> None:
    """Draw a small project of synthetic slides, train on it, predict and write back.

    Example: qprd demo ./demo
    """
    import qprd

    report(qprd.run_demo(folder, backend=backend, seed=seed), json)
