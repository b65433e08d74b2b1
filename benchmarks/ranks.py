"""Many processes at one queue of slides, simulated: what sharing costs, and what deaths cost.

    python benchmarks/ranks.py [--slides 10000] [--ranks 64] [--deaths 8] [--markdown FILE]

The claims and the queue are those of ``qprd predict``, on files in a temporary folder. Only the
scoring is pretended: its time passes on a simulated clock, and its result is an empty file.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from harness.command import run_command
from harness.options import command_line
from harness.runs import versions
from harness.tables import markdown_table, publish
from qprd.files.claims import Claims
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config
from qprd.jobs.predict.inputs import Inputs
from qprd.jobs.predict.queue import SlideQueue, Work
from qprd.qupath.project import Entry, Project, SlideSource
from qprd.results.freshness import Freshness

_HEAD = ("ranks", "slides", "died", "scored", "lost", "time / ideal", "own time a slide")
#: Slides differ in their tissue: the standard deviation of the logarithm of their times.
_SPREAD = 0.8


@dataclass(frozen=True)
class FakeProject:
    """A project of which only the place is asked."""

    path: Path


class FakeInputs:
    """Results are up to date if they are there."""

    def freshness(self, project: Project, entry: Entry) -> Freshness:
        """As `Inputs.freshness`."""
        there = (ProjectLayout(project.path).results / entry.id).exists()
        return Freshness("fresh" if there else "missing")


@dataclass(frozen=True)
class Outcome:
    """What a simulated run came to.

    Attributes:
        ranks: Number of processes.
        slides: Number of slides.
        deaths: Processes that died, each at a slide.
        scored: Slides that were scored, twice counting twice.
        lost: Slides without a result at the end.
        makespan: Simulated time, as a multiple of all scoring time divided by the ranks.
        own_s: Real seconds that claims and the queue took, for each slide.
    """

    ranks: int
    slides: int
    deaths: int
    scored: int
    lost: int
    makespan: float
    own_s: float

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        counts = (self.ranks, self.slides, self.deaths, self.scored, self.lost)
        return (*map(str, counts), f"{self.makespan:.3f}", f"{self.own_s * 1e3:.1f} ms")


def simulate(folder: Path, slides: int, ranks: int, deaths: int, seed: int = 0) -> Outcome:
    """Let ranks take slides until none is left.

    Args:
        folder: An empty folder.
        slides: Number of slides.
        ranks: Number of processes.
        deaths: So many of them die, each in the middle of a slide.
        seed: Of the times and of who dies.
    """
    chance = np.random.default_rng(seed)
    layout = ProjectLayout(folder / "project.qpproj")
    layout.results.mkdir(parents=True)
    entries = [Entry(str(n), f"{n}.svs", SlideSource("", None)) for n in range(1, slides + 1)]
    seconds = {entry.id: float(chance.lognormal(0, _SPREAD)) for entry in entries}
    end = sum(seconds.values()) / ranks
    dies_at = {
        int(rank): chance.uniform(0.1, 0.9) * end
        for rank in chance.choice(ranks, deaths, replace=False)
    }
    work = Work(cast("Project", FakeProject(layout.project)), predict_config({}), entries, None)

    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        claims = [stack.enter_context(Claims(layout.project)) for _ in range(ranks)]
        queues = [SlideQueue(work, cast("Inputs", FakeInputs()), claimed) for claimed in claims]
        taking: list[Iterator[Entry]] = [queue.take() for queue in queues]
        events: list[tuple[float, int, Entry | None]] = [(0.0, rank, None) for rank in range(ranks)]
        scored, now = 0, 0.0
        while events:
            now, rank, finished = heapq.heappop(events)
            if finished is not None:
                (layout.results / finished.id).touch()
                queues[rank].done(finished)
                scored += 1
            taken = next(taking[rank], None)
            if taken is None:
                continue
            if rank in dies_at and now + seconds[taken.id] > dies_at[rank]:
                _die(layout, taken)
                continue
            heapq.heappush(events, (now + seconds[taken.id], rank, taken))
        own_s = (time.perf_counter() - started) / slides
    lost = slides - len(list(layout.results.iterdir()))
    return Outcome(ranks, slides, deaths, scored, lost, now / end, own_s)


def _die(layout: ProjectLayout, entry: Entry) -> None:
    """Make the claim on a slide that of a process of this computer that has ended."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        check=True,
        text=True,
    )
    *_, claim = sorted(layout.claims.glob(f"{entry.id}.*"))
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"process": int(ended.stdout)}))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=10_000, metavar="N")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    parser.add_argument("--deaths", type=int, default=8, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for ranks in options.ranks:
        for deaths in sorted({0, min(options.deaths, ranks // 2)}):
            with tempfile.TemporaryDirectory(prefix="qprd-ranks-") as folder:
                rows.append(simulate(Path(folder), options.slides, ranks, deaths).cells())
            print("  ".join(rows[-1]), file=sys.stderr)
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    table = markdown_table(_HEAD, rows)
    publish(f"{table}\n{found}\n\n```sh\n{command_line()}\n```\n", options.markdown)


if __name__ == "__main__":
    run_command(main)
