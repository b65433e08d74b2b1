"""Checks of what commands of qprd write to a project: under way, broken off, or left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.backups import size_of, undoable
from qprd.files.claims import work_in_progress
from qprd.files.journal import is_unfinished, require_readable
from qprd.files.layout import ProjectLayout
from qprd.files.lock import is_locked
from qprd.jobs.doctor.checks import Check, failure, passed, warning


def check_writes(project: Path) -> Iterator[Check]:
    """Check what is being written, was left unfinished, or can be taken back."""
    # A prediction writes now and then, and ends its write-back only when it ends.
    predicting = any(work.state == "running" for work in work_in_progress(project))
    if is_locked(project):
        yield passed("writing", "another command of qprd is writing to it now")
    elif is_unfinished(project):
        yield _unfinished(project)
    layout = ProjectLayout(project)
    left = layout.leftovers()
    if left:
        yield warning(
            "leftovers",
            f"{len(left)} of commands that were killed, such as {left[0].name} "
            f"({sum(map(size_of, left)) / 2**20:.1f} MiB in all)",
            "Nothing need be done: the next command that writes to the project removes them.",
        )
    try:
        runs = undoable(project)
    except QprdError as error:
        yield failure("backups", error)
        return
    if runs and runs[0].is_broken_off and not (predicting or is_locked(project)):
        yield warning(
            "writing",
            f"the {runs[0].command} of {runs[0].time} was broken off: some images may be new and "
            "some old",
            "Run it again, or qprd undo.",
        )
    if runs:
        size = size_of(layout.backups) / 2**20
        yield passed(
            "backups",
            f"{len(runs)} in qprd/backups ({size:.1f} MiB); qprd undo takes back {runs[0].command} "
            f"of {runs[0].time}",
        )


def _unfinished(project: Path) -> Check:
    try:
        require_readable(project)
    except QprdError as error:
        return failure("writing", error)
    return warning(
        "writing",
        "a command was killed while it wrote; each file is whole, but some may be new and some old",
        "qprd write-back or qprd undo: whichever runs next clears it up first.",
    )
