"""``qprd doctor``, ``qprd demo`` and ``qprd groovy``: before the first project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qprd.cli.app import app
from qprd.cli.options import (
    AnnotationsOption,
    BackendOption,
    JsonOption,
    ProjectArgument,
    SlidesOption,
)
from qprd.cli.session import exit_for, report


@app.command()
def doctor(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    slides: SlidesOption = None,
    annotations: AnnotationsOption = None,
    tumor_class: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Class that means tumor. Repeatable. Default: Tumor."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Check this installation, and a project if one is named: PASS, WARN or FAIL, and the fix.

    Example: qprd doctor project.qpproj
    """
    from qprd.jobs.doctor import examine

    summary = examine(
        project,
        backend=backend,
        slides=slides or (),
        annotations=annotations,
        tumor_classes=tuple(tumor_class or ("Tumor",)),
    )
    report(summary, json)
    exit_for(summary.failed)


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
    from qprd.jobs.demo import run_demo
    from qprd.progress import TerminalProgress

    summary = run_demo(folder, backend=backend, seed=seed, progress=TerminalProgress())
    report(summary, json)


@app.command()
def groovy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the scripts are put.")],
    json: JsonOption = None,
) -> None:
    """Copy the Groovy scripts that run inside QuPath to a folder.

    Example: qprd groovy ~/QuPath/scripts
    """
    from qprd.jobs.reporting import write_json_object
    from qprd.qupath.scripts import copy_scripts

    written = copy_scripts(folder)
    write_json_object(json, {"scripts": [str(path) for path in written]})
    for path in written:
        typer.echo(path)
