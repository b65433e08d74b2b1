"""``qprd undo``."""

from __future__ import annotations

from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import DryRunOption, JsonOption, ProjectGroup, expand
from qprd.cli.session import report


@app.command()
@expand
def undo(
    project: ProjectGroup,
    everything: Annotated[
        bool, typer.Option("--all", help="Take back every write whose backup is kept.")
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Take back the last write-back, removal or import: files become what they were.

    Where you have worked on an image since, only what is qprd's goes back.
    Backups are in PROJECT/qprd/backups: the last 10 commands, up to 2 GiB.

    Example: qprd undo project.qpproj --dry-run
    """
    import qprd

    with project.open() as opened:
        summary = qprd.undo(opened, everything=everything, dry_run=dry_run)
    report(summary, json)
