"""Claims: who is at work on what, among processes that share nothing but a folder.

A claim on a piece of work is a file ``NAME.N`` that only its maker could make (O_EXCL). Its process
changes the time of the file again and again. ``N`` counts the processes that died at this work: a
claim whose process is gone is never removed or changed by others, who claim ``NAME.N+1``.
Each process also has a claim of its own, ``process-ID.0``, from its start to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import Self

from qprd.errors import QprdError
from qprd.files.atomic import disk_time, is_temporary_name, replacing, write_errors
from qprd.files.layout import ProjectLayout
from qprd.files.lock import locked

#: Work that has ended so many processes is left out: it may be what ended them.
MOST_DEATHS = 2

#: Seconds between two signs of life of a process, and without one after which a process on another
#: computer counts as dead.
_BEAT_S, _DEAD_AFTER_S = 20.0, 300.0

#: What the claims of processes on no work in particular begin with.
_PROCESS = "process-"


@dataclass(frozen=True)
class _Claim:
    """What a claim says of its process.

    Attributes:
        host: The computer, and the part of it that sees the process.
        process: Its id there.
        started: When it started, by the computer's own count; None where that is not known.
        problem: Why the work could not be done; None while it goes on.
        since: When the work began, ISO 8601, UTC.
    """

    host: str
    process: int
    started: str | None
    problem: str | None = None
    since: str = ""


_CLAIMS = TypeAdapter(_Claim)


@dataclass(frozen=True)
class WorkInProgress:
    """A piece of work that a process is or was at.

    Attributes:
        name: Of the work; None for a process that is at none in particular.
        host: The computer.
        process: Id of the process there.
        since: When the work began, ISO 8601, UTC; empty if that is not known.
        state: ``running``; ``dead`` if the process has ended without a word; ``failed``.
        problem: Why it failed, else None.
    """

    name: str | None
    host: str
    process: int
    since: str
    state: Literal["running", "dead", "failed"]
    problem: str | None = None


def work_in_progress(project: Path) -> list[WorkInProgress]:
    """What processes are at in a project, without touching anything.

    Processes on other computers are judged by this computer's clock.
    """
    found: dict[str, tuple[int, WorkInProgress]] = {}
    with contextlib.suppress(OSError):
        for path in sorted(ProjectLayout(project).claims.iterdir()):
            name, number = path.stem, path.suffix[1:]
            claim = _read(path)
            if claim is None or is_temporary_name(path) or not number.isdigit():
                continue
            work = WorkInProgress(
                None if name.startswith(_PROCESS) else name,
                claim.host.split(" ")[0],
                claim.process,
                claim.since,
                "failed"
                if claim.problem is not None
                else "dead"
                if _is_dead(path, claim, time.time, _DEAD_AFTER_S)
                else "running",
                claim.problem,
            )
            found[name] = max(found.get(name, (-1, work)), (int(number), work), key=lambda f: f[0])
    return [work for _, work in found.values()]


class Claims:
    """The claims of this process on slides of a project; given up at the end of a ``with`` block.

    Args:
        project: The ``.qpproj`` file.
        beat_s: Seconds between two signs of life.
        dead_after_s: Seconds without one after which a process on another computer counts as dead.
    """

    def __init__(
        self, project: Path, *, beat_s: float = _BEAT_S, dead_after_s: float = _DEAD_AFTER_S
    ) -> None:
        self._project = project
        self._folder = ProjectLayout(project).claims
        self._beat_s = beat_s
        self._dead_after_s = dead_after_s
        self._held: dict[str, Path] = {}
        self._ended = threading.Event()
        self._clock_offset: float | None = None
        self._me = _Claim(_this_host(), os.getpid(), _start_of(os.getpid()))

    def __enter__(self) -> Self:
        layout = ProjectLayout(self._project)
        with write_errors("The folder of claims", self._folder):
            layout.inside(self._folder).mkdir(parents=True, exist_ok=True)
        if any(self._folder.iterdir()):
            # Only housekeeping: who finds another command writing leaves it.
            with contextlib.suppress(QprdError), locked(self._project):
                self._forget_if_idle()
        self.take(f"{_PROCESS}{uuid.uuid4().hex}")
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for name in list(self._held):
            self.release(name)
        # Only housekeeping, which must not hide what went wrong before.
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{_PROCESS}*"):
                if self._is_dead(path):
                    path.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Claim a piece of work, also from a process that died.

        Returns:
            False if another process is at work on it, could not do it, or if it has ended
            `MOST_DEATHS` processes.

        Raises:
            QprdError: the folder cannot be written.
        """
        latest = self._latest(name)
        number = 0
        if latest is not None:
            number = int(latest.suffix[1:]) + 1
            if number == MOST_DEATHS or not self._is_dead(latest):
                return False
        path = self._folder / f"{name}.{number}"
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = json.dumps(asdict(replace(self._me, since=now)))
        with write_errors("The claim on a slide", path):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                return False
        self._held[name] = path
        return True

    def release(self, name: str) -> None:
        """Give up a claim, with those of processes that died at the same work before."""
        path = self._held.pop(name)
        for number in range(int(path.suffix[1:]) + 1):
            with contextlib.suppress(OSError):
                path.with_suffix(f".{number}").unlink(missing_ok=True)

    def fail(self, name: str, problem: str) -> None:
        """Give up a claim, and tell the others why the work cannot be done."""
        path = self._held.pop(name)
        failed = replace(_read(path) or self._me, problem=problem)
        with contextlib.suppress(OSError), replacing(path) as new:
            new.write_bytes(_CLAIMS.dump_json(failed))

    def problem_of(self, name: str) -> str | None:
        """Why another process could not do a piece of work, or why nobody tries; else None."""
        latest = self._latest(name)
        if latest is None:
            return None
        claim = _read(latest)
        if claim is not None and claim.problem is not None:
            return claim.problem
        if latest.suffix == f".{MOST_DEATHS - 1}" and self._is_dead(latest):
            return f"{MOST_DEATHS} processes have died at it. Leave it out, or run it again alone."
        return None

    def others_at_work(self, names: Iterable[str]) -> list[str]:
        """The pieces of work that other processes are at."""
        return [
            name
            for name in names
            if name not in self._held
            and (latest := self._latest(name)) is not None
            and self._is_at_work(latest)
        ]

    def _latest(self, name: str) -> Path | None:
        for number in reversed(range(MOST_DEATHS)):
            path = self._folder / f"{name}.{number}"
            if path.exists():
                return path
        return None

    def _is_at_work(self, path: Path) -> bool:
        claim = _read(path)
        return (claim is None or claim.problem is None) and not self._is_dead(path)

    def _is_dead(self, path: Path) -> bool:
        return _is_dead(path, _read(path), self._now, self._dead_after_s)

    def _now(self) -> float:
        if self._clock_offset is None:
            self._clock_offset = disk_time(self._folder) - time.monotonic()
        return self._clock_offset + time.monotonic()

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            for path in list(self._held.values()):
                with contextlib.suppress(OSError):
                    os.utime(path)

    def _forget_if_idle(self) -> None:
        """Remove all claims if no process is at work: what died or failed is tried again."""
        with contextlib.suppress(OSError):
            claims = [path for path in self._folder.iterdir() if not is_temporary_name(path)]
            if not any(map(self._is_at_work, claims)):
                for path in claims:
                    path.unlink()


def _read(path: Path) -> _Claim | None:
    """A claim; None if it is being written, or gone."""
    try:
        return _CLAIMS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _is_dead(
    path: Path, claim: _Claim | None, now: Callable[[], float], dead_after_s: float
) -> bool:
    """Whether the process of a claim is gone without having said anything."""
    if claim is not None and claim.problem is not None:
        return False
    if claim is not None and claim.host == _this_host():
        if not _is_running(claim.process, claim.started):
            return True
        if claim.started is not None:
            return False
        # Its number may be another process's by now: the signs of life tell.
    try:
        return now() - path.stat().st_mtime > dead_after_s
    except OSError:
        return False


def _this_host() -> str:
    """This computer; in a container, which has processes of its own, the container."""
    with contextlib.suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    return platform.node()


def _start_of(process: int) -> str | None:
    """When a process on this computer started; None if it has ended, or there is no telling."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    # The name of the program, in parentheses, may hold anything.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _is_running(process: int, started: str | None) -> bool:
    if started is not None:
        return _start_of(process) == started
    if sys.platform == "win32":
        # There os.kill would end it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
