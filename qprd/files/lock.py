"""The lock of a project: one command of qprd writes to it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import write_error
from qprd.files.layout import ProjectLayout


@contextmanager
def locked(project: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the project's lock, which the system takes back from a process that dies.

    Raises:
        QprdError: another command holds it and is not waited for, or the project's folder cannot be
            written.
    """
    path = ProjectLayout(project).lock
    ProjectLayout(project).inside(path)
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise QprdError(
            "Another command of qprd is writing to this project; nothing was written.",
            where=str(path),
            fix="Wait until it has ended, then run it again (after a prediction, qprd write-back "
            "is enough).",
            exit_code=ExitCode.FAILED,
        ) from error
    except OSError as error:
        raise write_error("The project", path, error) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(project: Path) -> bool:
    """Whether a command of qprd is writing to the project now; touches nothing."""
    path = ProjectLayout(project).lock
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # Without access to the file there is no way to know.
        return False
