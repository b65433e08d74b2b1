"""Progress of long work: bars in a terminal or a notebook, lines in a log file, or nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from qprd.events import emit, is_logged

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 60
_SECONDS_BETWEEN_EVENTS = 1

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

    def task(self, title: str, total: int, unit: str = "slide") -> AbstractContextManager[Task]:
        """A bar of ``total`` units that vanishes when its work is done."""
        ...


class SilentProgress:
    """Shows nothing: for tests, libraries and ``--quiet``."""

    @contextmanager
    def task(self, title: str, total: int, unit: str = "slide") -> Iterator[Task]:  # noqa: ARG002
        """A bar that is not shown."""
        yield _SilentTask()


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class TerminalProgress:
    """Bars on standard error or in a notebook; in a log file, a line now and then."""

    @contextmanager
    def task(self, title: str, total: int, unit: str = "slide") -> Iterator[Task]:
        """One bar with rate and time left, or the lines that stand for it."""
        if not (sys.stderr.isatty() or _in_notebook()):
            yield _LoggedTask(printable(title), total, unit)
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=printable(title), unit=unit, dynamic_ncols=True) as bar:
            yield _BarTask(bar)


def _in_notebook() -> bool:
    """Whether a notebook runs this that can show bars."""
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


class _BarTask:
    def __init__(self, bar: tqdm[NoReturn]) -> None:
        self._bar = bar

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(printable(text))


@dataclass
class _Pace:
    """The pace of a task since it began."""

    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        return self.done == self.total

    @property
    def rate(self) -> float | None:
        """Units a second; None before the first."""
        return self.done / max(time.monotonic() - self.started, 1e-9) if self.done else None

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest takes at this rate; None before the first unit."""
        return (self.total - self.done) / self.rate if self.rate else None


class _LoggedTask:
    """A line at each note, and otherwise one a minute."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title = title
        self._pace = _Pace(total)
        self._unit = unit
        self._reported = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._pace.done += count
        if time.monotonic() - self._reported >= _SECONDS_BETWEEN_LINES or self._pace.is_done:
            self._report("")

    def note(self, text: str) -> None:
        self._report(f"  {text}")

    def _report(self, text: str) -> None:
        self._reported, pace = time.monotonic(), self._pace
        print(
            f"{self._title}: {pace.done}/{pace.total}  {pace.rate or 0:.1f} {self._unit}/s  "
            f"{pace.seconds_left or 0:.0f} s left{text}",
            file=sys.stderr,
            flush=True,
        )


class _EmittingProgress:
    """Bars whose changes are events, too."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    @contextmanager
    def task(self, title: str, total: int, unit: str = "slide") -> Iterator[Task]:
        """A bar, and an event a second at the most."""
        with self._shown.task(title, total, unit) as bar:
            yield _EmittingTask(title, total, unit, bar)


class _EmittingTask:
    def __init__(self, title: str, total: int, unit: str, bar: Task) -> None:
        self._title = title
        self._unit = unit
        self._pace = _Pace(total)
        self._bar = bar
        self._emit()

    def advance(self, count: int = 1) -> None:
        self._bar.advance(count)
        self._pace.done += count
        if time.monotonic() - self._reported >= _SECONDS_BETWEEN_EVENTS or self._pace.is_done:
            self._emit()

    def note(self, text: str) -> None:
        self._bar.note(text)

    def _emit(self) -> None:
        self._reported, pace = time.monotonic(), self._pace
        rate, left = pace.rate, pace.seconds_left
        emit(
            "progress",
            task=self._title,
            done=pace.done,
            total=pace.total,
            unit=self._unit,
            rate=None if rate is None else round(rate, 3),
            seconds_left=None if left is None else round(left, 1),
        )


def progress_bars(progress: bool | Progress) -> Progress:
    """Bars where they are wanted (True), none (False), or those that are given.

    While events are logged, progress is among them.
    """
    if isinstance(progress, bool):
        progress = TerminalProgress() if progress else SilentProgress()
    return _EmittingProgress(progress) if is_logged() else progress
