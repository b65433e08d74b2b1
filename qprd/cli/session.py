"""What every command does after its job: report and exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qprd.errors import ExitCode

if TYPE_CHECKING:
    from qprd.jobs.reporting import Summary


def report(summary: Summary, json: Path | None) -> None:
    """Print what a job did; also write it to ``json``, where that is given."""
    from qprd.jobs.reporting import print_summary, write_json

    # What took long to find is shown, even if the file cannot be written.
    print_summary(summary)
    write_json(json, summary)


def exit_for(failed: int) -> None:
    """Exit with a code that is not 0 where something failed."""
    if failed:
        raise typer.Exit(ExitCode.FAILED)
