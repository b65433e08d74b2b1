"""The end of a command: its report, and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qprd.errors import ExitCode

if TYPE_CHECKING:
    from qprd.jobs.reporting import Summary


def report(summary: Summary, json: Path | None, content: object = None) -> None:
    """Print a summary, write it to a file if one is given, and exit with 1 if something failed.

    Args:
        summary: What the job returned.
        json: The file.
        content: What to write to it instead of the summary's fields.
    """
    from qprd.events import emit
    from qprd.jobs.reporting import plain, write_json_object
    from qprd.progress import printable

    for message in (*getattr(summary, "notes", ()), *getattr(summary, "problems", ())):
        emit("warning", message=message)

    lines, content = [*map(printable, summary.lines())], summary if content is None else content
    emit("result", lines=lines, content=plain(content))
    # Printed first: what took long to compute is shown even if the file cannot be written.
    for line in lines:
        typer.echo(line)
    write_json_object(json, content)
    if getattr(summary, "failed", 0):
        raise typer.Exit(ExitCode.FAILED)
