"""Breaks writes off at many points: by SIGKILL, by Ctrl-C, by a disk that is full from then on.

Run as a program of its own, as it forks: ``python -m tests.helpers.killed_writes
JOBS.json``. A *point* is the moment
just before a line of the code that touches files, or before the system is asked to change one. A
job names the project that each write starts from, what is written, and a folder for the copies that
are written to and broken off. What is left of each is for the caller to look at; printed is, as
JSON, where each was broken off.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import qprd
from qprd.errors import QprdError
from qprd.files.session import WriteAccess
from qprd.jobs.remove import remove
from qprd.jobs.undo import undo
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import Project
from tests.helpers.small_project import predictions

PACKAGE = Path(qprd.__file__).parent
#: The modules whose lines are points.
TRACED = {
    str(PACKAGE / f"{name}.py")
    for name in (
        "files/atomic",
        "files/transaction",
        "files/journal",
        "files/backups",
        "files/session",
        "files/lock",
        "qupath/paquo_backend",
        "qupath/exchange",
    )
}
#: What the system is asked for that changes a folder, and whether that needs space.
CHANGES = {
    "open": True,
    "os.mkdir": True,
    "os.link": True,
    "os.rename": False,
    "os.remove": False,
    "os.rmdir": False,
}
#: Exit code of a child whose write was refused in plain words.
REFUSED = 3

Write = Callable[[Path], None]


class Points:
    """Counts the points that a write comes to, and strikes at one of them.

    Attributes:
        count: How many there were.
        changing: Which of them are just before a change.
        needing_space: Which of these need space.
    """

    def __init__(self, project: Path, at: int, strike: Callable[[str, bool], None]) -> None:
        self.count = 0
        self.changing: list[int] = []
        self.needing_space: list[int] = []
        self._root = str(project.parent)
        self._at = at
        self._strike = strike
        self._is_on = False

    def __enter__(self) -> Points:
        self._is_on = True
        sys.addaudithook(self._asked)
        sys.settrace(self._traced)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)
        self._is_on = False

    def _traced(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            self._reached(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return self._traced

    def _asked(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on or event not in CHANGES:
            return
        path = str(arguments[0])
        if not path.startswith(self._root) or self._changes_nothing(event, path, arguments):
            return
        self.changing.append(self.count + 1)
        if CHANGES[event]:
            self.needing_space.append(self.count + 1)
        self._reached(f"{event} {Path(path).name}", CHANGES[event])

    @staticmethod
    def _changes_nothing(event: str, path: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            return not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        return os.path.lexists(path) == (event == "os.mkdir")

    def _reached(self, place: str, needs_space: bool = False) -> None:
        self.count += 1
        if self.count == self._at or (self._at and self.count > self._at and needs_space):
            self._strike(place, needs_space)


def strikes(how: str, said: int) -> Callable[[str, bool], None]:
    """What happens at the point that was chosen; where it was, goes to a file descriptor."""
    struck = False

    def strike(place: str, needs_space: bool) -> None:
        nonlocal struck
        if struck and how != "full":
            return
        if not struck:
            os.write(said, place.encode())
        struck = True
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "interrupt":
            raise KeyboardInterrupt
        elif needs_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return strike


def forked(write: Write, project: Path, at: int, how: str) -> tuple[int, Any]:
    """The wait status of a child that writes, and where it was struck, or the points it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            with Points(project, at, strikes(how, writing)) as points:
                write(project)
            if not at:
                found = (points.count, points.changing, points.needing_space)
                os.write(writing, json.dumps(found).encode())
            code = 0
        except (QprdError, KeyboardInterrupt):
            code = REFUSED
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitpid(child, 0)[1], said if at else json.loads(said)


def spread(count: int, wanted: list[int], least: int) -> list[int]:
    """The points wanted, and others evenly between them until there are enough."""
    chosen = set(wanted)
    step = 2
    while len(chosen) < least:
        chosen |= {1 + number * (count - 1) // (step - 1) for number in range(step)}
        step *= 2
    return sorted(chosen)


def break_off_all(write: Write, template: Path, copies: Path, how: str, least: int) -> list[Any]:
    """Break off as many writes: the copy, where it was, and its wait status.

    There is one at each point before a change (of which space is needed, if that is short).
    """

    def copied(name: str) -> Path:
        shutil.copytree(template.parent, copies / name)
        return copies / name / template.name

    status, (count, changing, needing_space) = forked(write, copied("whole"), 0, how)
    assert status == 0, "the write that is left alone failed"
    broken = []
    for at in spread(count, needing_space if how == "full" else changing, least):
        project = copied(f"{at:05d}")
        status, place = forked(write, project, at, how)
        broken.append((str(project), place, status))
    return broken


def write_both(opened: Project, make: Callable[[str], Any]) -> None:
    """Predictions into all images, in one session."""
    with opened.writing("write-back", opened.entries()):
        for entry in opened.entries():
            opened.write_predictions(entry, make(entry.id))


def exchange_write(project: Path) -> None:
    """Two images of an exchange project in one session."""
    with ExchangeProject(project) as opened:
        write_both(opened, lambda _: predictions(tiles=5, bundle="new"))


def exchange_parts(project: Path) -> None:
    """The same, each image in a session of its own, as a prediction does it."""
    with ExchangeProject(project) as opened:
        first, last = opened.entries()
        for entry in (first, last):
            with opened.writing("write-back", (first, last), will_continue=entry is first):
                opened.write_predictions(entry, predictions(tiles=5, bundle="new"))


def exchange_removal(project: Path) -> None:
    """What qprd wrote, out of it again."""
    with ExchangeProject(project) as opened:
        summary = remove(opened, progress=SilentProgress())
    if summary.failed:
        raise QprdError(summary.problems[0])


def undo_write(project: Path) -> None:
    """Take back the last command; files that nobody changed need no QuPath for that."""
    with ExchangeProject(project) as opened:
        undo(opened, progress=SilentProgress())


def clear_up(project: Path) -> None:
    """What every command does first: finish or take back what a crash left."""
    with WriteAccess(project, "exchange").session("write-back"):
        pass


def paquo_write(project: Path) -> None:
    """Both images of the colon project, by a real QuPath, in one session."""
    from qprd.qupath.paquo_backend import PaquoProject
    from tests.helpers.qupath_work import make_predictions

    with PaquoProject(project) as opened:
        write_both(opened, lambda entry: make_predictions(entry, bundle="new"))


def paquo_removal(project: Path) -> None:
    """What qprd wrote, out of QuPath's own data again."""
    from qprd.qupath.paquo_backend import PaquoProject

    with PaquoProject(project) as opened:
        remove(opened, progress=SilentProgress())


WRITES: dict[str, Write] = {
    "exchange write": exchange_write,
    "exchange parts": exchange_parts,
    "exchange removal": exchange_removal,
    "undo": undo_write,
    "clear up": clear_up,
    "paquo write": paquo_write,
    "paquo removal": paquo_removal,
}


def with_java(write: Write, project: Path, at: int, said: Path) -> list[Any]:
    """Write in this process, as none may fork once Java runs; all points if `at` is 0.

    If `at` is below 0, the process is killed as soon as QuPath has written a part of a file.
    """
    from qprd.qupath.java import start_qupath

    start_qupath()
    if at < 0:
        threading.Thread(target=_kill_when_half_written, args=(project, said), daemon=True).start()
    place = os.open(said, os.O_CREAT | os.O_WRONLY)
    with Points(project, max(at, 0), strikes("kill", place)) as points:
        write(project)
    return [points.count, points.changing]


def _kill_when_half_written(project: Path, said: Path) -> None:
    def staged() -> Iterator[Path]:
        return project.parent.glob("data/*/.data.qpdata.*.tmp")

    while not any(path.stat().st_size for path in staged()):
        pass
    said.write_text("inside QuPath")
    os.kill(os.getpid(), signal.SIGKILL)


def main(jobs: list[dict[str, Any]]) -> None:
    # A process that dies needs none.
    os.fsync = lambda fd: None
    told = []
    for job in jobs:
        write, template, copies = WRITES[job["write"]], Path(job["template"]), Path(job["copies"])
        copies.mkdir(parents=True, exist_ok=True)
        if "at" in job:
            told.append(with_java(write, template, job["at"], copies / "place"))
        else:
            told.append(break_off_all(write, template, copies, job["how"], job["least"]))
    print(json.dumps(told))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
