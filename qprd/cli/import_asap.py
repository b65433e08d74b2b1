"""``qprd import-asap``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import DryRunOption, JsonOption, ProjectOptions, expand, project_options
from qprd.cli.session import report


@app.command()
@expand
def import_asap(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="ASAP's .xml, or a .json of Camelyon16 annotations."),
    ],
    project: Annotated[ProjectOptions, project_options(without="annotations")],
    *,
    image: Annotated[str, typer.Option(metavar="NAME", help="The image that was annotated.")],
    tumor_class: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Class that the annotations get. Default: Tumor."),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Turn tumor drawn in ASAP into annotations of a project.

    Groups mean what they do in Camelyon16. Tumor: _0, _1, Tumor, metastasis.
    Holes in it: _2, Exclusion, negative. What else there is, is reported.
    Importing a file again replaces what it gave before, unless you changed it.

    Example: qprd import-asap tumor_076.xml project.qpproj --image tumor_076.tif
    """
    import qprd

    with project.open() as opened:
        summary = qprd.import_asap(
            opened, file, image=image, tumor_class=tumor_class, dry_run=dry_run
        )
    report(summary, json)
