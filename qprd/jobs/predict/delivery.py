"""The write-back of a prediction: results go into the project while others are still computed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.write_back import WriteBackSummary, write_back_entries
from qprd.progress import Progress, SilentProgress
from qprd.qupath.project import Entry, Project
from qprd.results.folder import load_slide_result

#: The largest share of the time that goes into writing while slides are scored. Opening a session
#: takes the longer the larger the project is, so that large ones are written several slides a time.
_SHARE = 0.05


class Delivery:
    """Writes results into a project a few at a time; to `qprd undo` they are one command.

    Args:
        project: The project.
        entries: All that may be written.
        progress: Shows what takes long at the end.
    """

    def __init__(self, project: Project, entries: Sequence[Entry], progress: Progress) -> None:
        self._project = project
        self._entries = entries
        self._progress = progress
        self._waiting: list[Entry] = []
        self._written: set[str] = set()
        self._summary: WriteBackSummary | None = None
        self._not_before = 0.0

    def add(self, entry: Entry) -> None:
        """Take a result that was just saved; it is written now or together with the next."""
        self._waiting.append(entry)
        started = time.monotonic()
        if started >= self._not_before:
            # While another process is writing, this one goes on scoring. A project that cannot be
            # written now may be later; at the end it is an error.
            with contextlib.suppress(QprdError):
                self._write(SilentProgress(), will_continue=True, wait=False)
            ended = time.monotonic()
            self._not_before = ended + (ended - started) * (1 / _SHARE - 1)

    def write(self, made: Sequence[Entry]) -> WriteBackSummary:
        """Write what was made and is not written yet; others of the same command will follow.

        Raises:
            QprdError: the project cannot be written.
        """
        self._waiting = [entry for entry in made if entry.id not in self._written]
        return self._write(self._progress, will_continue=True)

    def finish(self, covered: Sequence[Entry], changed: Sequence[Entry]) -> WriteBackSummary:
        """Write all that the project does not have yet; with that the command ends.

        Args:
            covered: Entries that have results, whoever made them.
            changed: Those of them whose results may have changed since they were written.

        Raises:
            QprdError: the project cannot be written.
        """
        known = {entry.id for entry in (*self._waiting, *changed)} | self._written
        others = [e for e in covered if e.id not in known and not self._has_results_of(e)]
        unchanged = sum(entry.id not in known for entry in covered) - len(others)
        self._waiting = list({e.id: e for e in (*self._waiting, *others, *changed)}.values())
        return replace(self._write(self._progress, will_continue=False), unchanged=unchanged)

    def _write(
        self, progress: Progress, *, will_continue: bool, wait: bool = True
    ) -> WriteBackSummary:
        written = write_back_entries(
            self._project,
            self._waiting,
            progress=progress,
            part_of=self._entries,
            will_continue=will_continue,
            wait=wait,
        )
        self._written.update(entry.id for entry in self._waiting)
        self._waiting = []
        earlier = self._summary
        self._summary = written if earlier is None else earlier.followed_by(written)
        return self._summary

    def _has_results_of(self, entry: Entry) -> bool:
        """Whether the project has the results of an entry, by the metadata that come with them."""
        folder = ProjectLayout(self._project.path).result(entry.id)
        try:
            return dict(self._project.stored_metadata(entry)) == load_slide_result(folder).metadata
        except QprdError:
            return False
