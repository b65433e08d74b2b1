"""Kills writes with SIGKILL, each just before another line of the code that touches files.

Run as a program of its own, as it forks: ``killed_writes.py JOBS.json``. A job names the project
that each write starts from, a folder for the copies that are written to and killed, and how many
kills there are to be. What is left of each is for the caller to look at; printed is, as JSON, where
each was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import qprd.qupath
from qprd.jobs.undo import undo_project
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.writing import WriteAccess

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from small_project import predictions  # noqa: E402

FOLDER = str(Path(qprd.qupath.__file__).parent)
#: The modules that touch files; a line of `sha256_of` is as good as any other.
TRACED = {
    f"{FOLDER}/{name}.py" for name in ("transaction", "journal", "backups", "writing", "filestate")
}

Write = Callable[[Path], None]


class Killer:
    """A trace function that kills its process before the n-th line; counts them if n is 0."""

    def __init__(self, at: int, where: int) -> None:
        self.lines = 0
        self._at = at
        self._where = where

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._at:
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                os.write(self._where, place.encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def run_killed(write: Write, project: Path, at: int, where: int) -> int:
    """Write, and be killed; the number of lines if `at` is beyond them."""
    killer = Killer(at, where)
    sys.settrace(killer)
    write(project)
    sys.settrace(None)
    return killer.lines


def forked(write: Write, project: Path, at: int) -> tuple[int, str]:
    """The wait status of a child that writes, and where it was killed, or how many lines it ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lines = run_killed(write, project, at, writing)
            os.write(writing, str(lines).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    said = b""
    while block := os.read(reading, 1000):
        said += block
    os.close(reading)
    return os.waitpid(child, 0)[1], said.decode()


def forked_and_timed(write: Write, project: Path, seconds: float) -> int:
    """The wait status of a child that is killed after a time."""
    child = os.fork()
    if child == 0:
        try:
            write(project)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kill_all(write: Write, template: Path, copies: Path, kills: int, timed: int) -> list[str]:
    """Kill as many writes, spread evenly over all lines and over the time that a write takes."""

    def copied(name: str) -> Path:
        shutil.copytree(template.parent, copies / name)
        return copies / name / template.name

    started = time.perf_counter()
    status, lines = forked(write, copied("whole"), 0)
    seconds = time.perf_counter() - started
    assert status == 0, "the write that is not killed failed"
    places = []
    for number in range(kills):
        at = 1 + number * (int(lines) - 1) // (kills - 1)
        status, place = forked(write, copied(f"{number:03d}"), at)
        assert status == signal.SIGKILL
        places.append(place)
    for number in range(timed):
        status = forked_and_timed(write, copied(f"t{number:02d}"), seconds * number / timed)
        assert status in (0, signal.SIGKILL)
        places.append("timed")
    return places


def exchange_write(project: Path) -> None:
    """Two images of an exchange project in one session."""
    with ExchangeProject(project) as opened, opened.writing("write-back"):
        for entry in opened.entries():
            opened.write_predictions(entry, predictions(tiles=5, bundle="new"))


def undo_write(project: Path) -> None:
    """Take back the last command."""
    with ExchangeProject(project) as opened:
        undo_project(opened, progress=SilentProgress())


def clear_up(project: Path) -> None:
    """What every command does first: finish or take back what a crash left."""
    with WriteAccess(project, "exchange").session("write-back"):
        pass


def replayed_write(prepared: Path) -> Write:
    """`PaquoProject.write_predictions` on two images, with a stand-in for QuPath.

    The stand-in puts the files in place that a real QuPath wrote for the same predictions.
    """
    from qupath_work import make_predictions

    from qprd.qupath import paquo_backend
    from qprd.qupath.entrydata import EntryFolder

    class Replayed:
        def __init__(self, folder: Any) -> None:
            self._folder = folder
            self._is_edited = False

        read = classmethod(lambda cls, _, folder: cls(folder))
        read_file = classmethod(lambda cls, _, path: cls(None))

        def count(self) -> int:
            edited = EntryFolder(prepared / self._folder.path.name)
            return int((edited if self._is_edited else self._folder).recorded_objects())

        def digests(self) -> None:
            return None

        def replace_own(self, meant: Any, others: Any) -> tuple[Any, int]:
            self._is_edited = True
            return meant, 0

        def write(self, path: Path) -> None:
            written = prepared / self._folder.path.name / "data.qpdata"
            path.write_bytes(written.read_bytes())

        def summary(self, earlier: Any, size_px: Any) -> str:
            return (prepared / self._folder.path.name / "summary.json").read_text(encoding="utf-8")

        def predictions(self, metadata: Any) -> None:
            return None

    nothing: Any = lambda *_, **__: None  # noqa: E731
    setattr(paquo_backend, "EntryData", Replayed)  # noqa: B010
    setattr(paquo_backend, "start_qupath", nothing)  # noqa: B010
    setattr(paquo_backend, "compare", nothing)  # noqa: B010
    for name in ("_changed", "_set_class_colors"):
        setattr(paquo_backend.PaquoProject, name, nothing)

    def write(project: Path) -> None:
        paquo_write(project, {entry: make_predictions(entry, bundle="new") for entry in "12"})

    return write


def paquo_write(project: Path, predictions: dict[str, Any]) -> None:
    """Both images of the colon project in one session."""
    from qprd.qupath.paquo_backend import PaquoProject

    with PaquoProject(project) as opened, opened.writing("write-back"):
        for entry in opened.entries():
            opened.write_predictions(entry, predictions[entry.id])


def real_write(project: Path) -> None:
    """The same with a real QuPath."""
    from qupath_work import make_predictions

    paquo_write(project, {entry: make_predictions(entry, bundle="new") for entry in "12"})


def main(jobs: list[dict[str, Any]]) -> None:
    # A process that dies needs none.
    os.fsync = lambda _: None
    places = []
    for job in jobs:
        kind, template, copies = job["kind"], Path(job["template"]), Path(job["copies"])
        copies.mkdir(parents=True, exist_ok=True)
        if kind == "real":
            # No fork once Java runs: one process a kill.
            place = os.open(copies / "place", os.O_CREAT | os.O_WRONLY)
            from qprd.qupath.java import start_qupath

            start_qupath()
            places.append(run_killed(real_write, template, job["at"], place))
            continue
        write = {"exchange": exchange_write, "undo": undo_write, "clear up": clear_up}.get(kind)
        write = write or replayed_write(Path(job["prepared"]))
        places.append(kill_all(write, template, copies, job["kills"], job["timed"]))
    print(json.dumps(places))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
