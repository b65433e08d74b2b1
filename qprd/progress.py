"""Progress of long work, shown on a terminal or not at all."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 60

#: Control characters, and those that change the direction of what follows.
_CONTROL = ("Cc", "Cf")


def printable(text: str) -> str:
    """Text for a terminal: names from a stranger's project can hold its control sequences."""
    valid = text.encode(errors="replace").decode()
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in _CONTROL else "\ufffd" for c in valid
    )


class Task(Protocol):
    """One bar."""

    def advance(self, count: int = 1) -> None:
        """Count more work as done."""
        ...

    def note(self, text: str) -> None:
        """Say something short beside the bar."""
        ...


class Progress(Protocol):
    """Makes bars."""

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """A bar of ``total`` units that vanishes when its work is done."""
        ...


class SilentProgress:
    """Shows nothing: for tests, libraries and ``--quiet``."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:  # noqa: ARG002
        """A bar that is not shown."""
        yield _SilentTask()


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class TerminalProgress:
    """Bars with rate and time left on standard error; in a log file, a line now and then."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """One bar, or the lines that stand for it where nobody watches a terminal."""
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_terminal:
            yield _LoggedTask(printable(title), total)
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        with RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        ) as bars:
            yield _BarTask(bars, bars.add_task(printable(title), total=total, rate="", note=""))


class _BarTask:
    def __init__(self, bars: RichProgress, task_id: TaskID) -> None:
        self._bars = bars
        self._task_id = task_id

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task_id, count)
        speed = self._bars.tasks[self._task_id].speed
        self._bars.update(self._task_id, rate=f"{speed:.1f}/s" if speed else "")

    def note(self, text: str) -> None:
        self._bars.update(self._task_id, note=text)


class _LoggedTask:
    """A line at each note, and otherwise one a minute."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES or self._done == self._total:
            self._tell("")

    def note(self, text: str) -> None:
        self._tell(f"  {text}")

    def _tell(self, text: str) -> None:
        self._told = time.monotonic()
        elapsed = max(self._told - self._started, 1e-9)
        rate = self._done / elapsed
        left = (self._total - self._done) / rate if rate else 0.0
        print(
            f"{self._title}: {self._done}/{self._total}  {rate:.1f}/s  {left:.0f} s left{text}",
            file=sys.stderr,
            flush=True,
        )
