"""A task of a progress bar that tests can look into."""

from __future__ import annotations


class CountingTask:
    """A task that counts."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        pass
