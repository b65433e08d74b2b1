"""The commands that write to a project, or take back what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import (
    BackendOption,
    DryRunOption,
    ImageOption,
    JsonOption,
    ProjectArgument,
    SlidesOption,
)
from qprd.cli.session import exit_for, opened_project, report


@app.command("write-back")
def write_back_command(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Put results that are already in PROJECT/qprd/results into the project, without predicting.

    Example: qprd write-back project.qpproj --backend paquo
    """
    from qprd.jobs.write_back import write_back_project
    from qprd.progress import TerminalProgress

    with opened_project(project, backend, slides) as opened:
        summary = write_back_project(
            opened, images=image or (), dry_run=dry_run, progress=TerminalProgress()
        )
    report(summary, json)
    exit_for(summary.failed)


@app.command()
def remove(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Take everything that qprd wrote out of the project again; result files stay.

    Example: qprd remove project.qpproj --image colon_2.tif
    """
    from qprd.jobs.write_back import remove_from_project
    from qprd.progress import TerminalProgress

    with opened_project(project, backend, slides) as opened:
        summary = remove_from_project(
            opened, images=image or (), dry_run=dry_run, progress=TerminalProgress()
        )
    report(summary, json)
    exit_for(summary.failed)


@app.command()
def undo(
    project: ProjectArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Take back every write whose backup is kept.")
    ] = False,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Take back the last write-back, removal or import: files become what they were.

    Where you have worked on an image since, only what is qprd's goes back.
    Backups are in PROJECT/qprd/backups: the last 10 commands, up to 2 GiB.

    Example: qprd undo project.qpproj --dry-run
    """
    from qprd.jobs.undo import undo_project
    from qprd.progress import TerminalProgress

    with opened_project(project, backend, slides) as opened:
        summary = undo_project(
            opened, everything=everything, dry_run=dry_run, progress=TerminalProgress()
        )
    report(summary, json)
    exit_for(summary.failed)


@app.command("import-asap")
def import_asap_command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="ASAP's .xml, or a .json of Camelyon16 annotations."),
    ],
    project: ProjectArgument = None,
    *,
    image: Annotated[
        str, typer.Option("--image", metavar="NAME", help="The image that was annotated.")
    ],
    tumor_class: Annotated[
        str, typer.Option(metavar="NAME", help="Class that the annotations get.")
    ] = "Tumor",
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Turn tumor drawn in ASAP into annotations of a project.

    Groups mean what they do in Camelyon16. Tumor: _0, _1, Tumor, metastasis.
    Holes in it: _2, Exclusion, negative. What else there is, is reported.
    Importing a file again replaces what it gave before, unless you changed it.

    Example: qprd import-asap tumor_076.xml project.qpproj --image tumor_076.tif
    """
    from qprd.jobs.import_asap import import_asap

    with opened_project(project, backend, slides) as opened:
        summary = import_asap(opened, file, image=image, tumor_class=tumor_class, dry_run=dry_run)
    report(summary, json)
