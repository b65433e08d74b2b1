"""``qprd doctor``."""

from __future__ import annotations

from typing import Annotated

from qprd.cli.app import app
from qprd.cli.options import Given, JsonOption, ProjectGroup, expand, settings
from qprd.cli.session import report
from qprd.settings import TrainConfig


@app.command()
@expand
def doctor(
    project: ProjectGroup,
    given: Annotated[
        Given,
        settings(
            TrainConfig,
            "images",
            "exclude",
            "assume_mpp",
            "tumor_class",
            "normal_class",
            "tissue_class",
        ),
    ],
    json: JsonOption = None,
) -> None:
    """Check this installation, and a project if one is named: PASS, WARN or FAIL, and the fix.

    Example: qprd doctor project.qpproj
    """
    import qprd

    summary = qprd.doctor(
        project.project,
        backend=project.backend,
        slides=project.slides or (),
        annotations=project.annotations,
        **given,
    )
    report(summary, json)
