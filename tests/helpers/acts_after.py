"""Something happens at a chosen step of a bar: Ctrl-C, a full disk, weights that diverge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qprd.progress import SilentProgress, Task


class ActsAfter(SilentProgress):
    """Progress that acts, once, when a bar has advanced by so much."""

    def __init__(self, steps: int, action: Callable[[], object], title: str = "training") -> None:
        self._left, self._action, self._title = steps, action, title

    @contextmanager
    def task(self, title: str, total: int, unit: str = "slide") -> Iterator[Task]:
        if title == self._title:
            yield self
        else:
            with super().task(title, total) as task:
                yield task

    def advance(self, count: int = 1) -> None:
        before, self._left = self._left, self._left - count
        if self._left <= 0 < before:
            self._action()

    def note(self, text: str) -> None:
        pass


def stops_after(steps: int, title: str = "training") -> ActsAfter:
    """Progress that presses Ctrl-C when a bar has advanced by so much."""

    def press() -> None:
        raise KeyboardInterrupt

    return ActsAfter(steps, press, title)
