"""A row of the table, and how two ways are timed against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.tables import UNDEFINED

Sense = Literal[">=", "<="]
#: The first fields of a row, which are known before it is measured.
RowStart = tuple[str, str, Sense, float]


@dataclass(frozen=True)
class Setup:
    """What every measurement gets.

    Attributes:
        device: As ``qprd predict --device`` takes it.
        data: The folder with ``slides/`` and ``qupath/``; it may be missing.
        folder: An empty folder of its own.
        rivals: Pythons in which other programs are installed, by the program's name.
    """

    device: str
    data: Path
    folder: Path
    rivals: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One figure, against its floor, its rival or its limit.

    Attributes:
        what: What was measured.
        against: What stands below the fraction line.
        sense: ``">="`` if larger is better, else ``"<="``.
        limit: What the ratio should reach, or stay below.
        ratio: None where it cannot be had; ``detail`` says why then.
        detail: The figures that the ratio was made of, with their units.
    """

    what: str
    against: str
    sense: Sense
    limit: float
    ratio: float | None
    detail: str

    @property
    def ok(self) -> bool | None:
        """Whether the limit is kept; None where there is no ratio."""
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.sense == ">=" else self.ratio <= self.limit

    def as_json(self) -> dict[str, object]:
        """The row for machines."""
        return {
            "what": self.what,
            "against": self.against,
            "ratio": self.ratio,
            "target": f"{self.sense} {self.limit:g}",
            "ok": self.ok,
            "detail": self.detail,
        }

    def cells(self) -> list[str]:
        """The row for people."""
        ratio = UNDEFINED if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "yes", False: "**no**", None: UNDEFINED}[self.ok]
        return [
            self.what,
            self.against,
            ratio,
            f"{self.sense} {self.limit:g}",
            verdict,
            self.detail,
        ]


def seconds(*ways: Callable[[], object], repeats: int = 3) -> list[float]:
    """Wall-clock seconds of each way: the least of several turns, in which they alternate.

    What else runs on the machine then hits all of them, and the least is hit least.

    Args:
        ways: Called once each before anything is timed.
        repeats: Turns.
    """
    for way in ways:
        way()
    best = [float("inf")] * len(ways)
    for _ in range(repeats):
        for number, way in enumerate(ways):
            started = time.perf_counter()
            way()
            best[number] = min(best[number], time.perf_counter() - started)
    return best
