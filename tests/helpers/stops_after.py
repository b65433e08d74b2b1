"""Ctrl-C at a chosen step of a bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qprd.progress import SilentProgress, Task


class StopsAfter(SilentProgress):
    """Progress that presses Ctrl-C when a bar has advanced by so much."""

    def __init__(self, steps: int, title: str = "training") -> None:
        self.steps = steps
        self._title = title

    @contextmanager
    def task(self, title: str, total: int, unit: str = "slide") -> Iterator[Task]:
        if title == self._title:
            yield self
        else:
            with super().task(title, total) as task:
                yield task

    def advance(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps <= 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass
