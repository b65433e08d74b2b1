"""``qprd status``."""

from __future__ import annotations

from qprd.cli.app import app
from qprd.cli.options import JsonOption, ProjectGroup, expand
from qprd.cli.session import report


@app.command()
@expand
def status(project: ProjectGroup, json: JsonOption = None) -> None:
    """Show trainings, bundles and results of a project, and what was left to do or left behind.

    Example: qprd status project.qpproj
    """
    import qprd

    with project.open() as opened:
        summary = qprd.status(opened)
    report(summary, json)
