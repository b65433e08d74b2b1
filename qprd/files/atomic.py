"""Files and folders that are written whole or not at all.

What is being written stands beside its place under a temporary name, ``.NAME.WRITER-RANDOM.tmp``,
and is renamed into its place once it is complete and on the disk. ``WRITER`` names the computer and
the process, which tells what a killed process left behind from what another is still writing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qprd.errors import DiskError, ExitCode, QprdError

_HOST = hashlib.sha256(platform.node().encode(errors="replace")).hexdigest()[:8]
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<process>\d{1,9})-[0-9a-f]{8}(?P<old>\.old)?\.tmp",
    re.DOTALL,
)
#: A process on another computer cannot be asked whether it is still running.
_ABANDONED_AFTER_S = 7 * 24 * 3600


def temporary_name(path: Path) -> Path:
    """A new name beside ``path`` for what is to take its place."""
    writer = f"{_HOST}-{os.getpid()}"
    return path.with_name(f".{path.name}.{writer}-{uuid.uuid4().hex[:8]}.tmp")


def is_temporary_name(path: Path) -> bool:
    """Whether `temporary_name` makes such names."""
    return _TEMPORARY.fullmatch(path.name) is not None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file: the temporary file that is yielded replaces ``path`` if the block succeeds.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Write a folder: the new folder that is yielded replaces ``path`` if the block succeeds.

    Killed between the two renames, it leaves the earlier folder under a temporary name, from which
    `remove_temporary` brings it back.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    new = temporary_name(path)
    old = new.with_suffix(".old.tmp")
    try:
        new.mkdir(parents=True)
        yield new
        for file in new.rglob("*"):
            if file.is_file() and not file.is_symlink():
                sync_file(file)
        # An empty folder, which may have been made to reserve its name, is replaced at once.
        is_empty = sys.platform != "win32" and path.is_dir() and not any(path.iterdir())
        if path.exists() and not is_empty:
            path.rename(old)
        new.rename(path)
    finally:
        for folder in (old, new):
            if folder.exists():
                remove_temporary(folder)
    sync_folder(path.parent)


def disk_time(folder: Path) -> float:
    """The time now, by the clock that stamps files in a folder: those of computers may differ."""
    probe = temporary_name(folder / "now")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no part of it is ever taken for the whole, or leave it as it is."""
    outdated = temporary_name(folder)
    with contextlib.suppress(OSError):
        folder.rename(outdated)
        remove_temporary(outdated)


def walk(folder: Path, *, depth: int) -> Iterator[os.DirEntry[str]]:
    """List a folder and so many levels of its subfolders; links to folders are not followed."""
    with contextlib.suppress(OSError):
        listed = [] if folder.is_symlink() else list(os.scandir(folder))
        for entry in sorted(listed, key=lambda entry: entry.name):
            yield entry
            if depth > 0 and entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path), depth=depth - 1)


def find_temporary(folder: Path, *, depth: int) -> Iterator[Path]:
    """Find temporary files and folders, as far as `walk` goes."""
    found = (Path(entry.path) for entry in walk(folder, depth=depth))
    return filter(is_temporary_name, found)


def is_abandoned(path: Path) -> bool:
    """Whether the process that was writing a temporary file or folder has ended.

    If that process ran on another computer, or the name does not tell, it counts as ended after a
    week without a change.
    """
    match = _TEMPORARY.fullmatch(path.name)
    # On Windows, os.kill would end the process instead of looking for it.
    if match is not None and match["host"] == _HOST and sys.platform != "win32":
        try:
            os.kill(int(match["process"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_AFTER_S
    except OSError:
        return False


def remove_temporary(path: Path) -> None:
    """Remove a temporary file or folder; an earlier folder that nothing replaced goes back."""
    match = _TEMPORARY.fullmatch(path.name)
    with contextlib.suppress(OSError):
        if match is not None and match["old"] and not path.with_name(match["name"]).exists():
            path.rename(path.with_name(match["name"]))
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file's contents to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that nothing is in, or leave it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextmanager
def write_errors(what: str, where: Path, *, fix: str | None = None) -> Iterator[None]:
    """Turn a full disk and the like into an error that says so; see `write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(what, where, error, fix=fix) from error


def write_error(
    what: str, where: Path, error: OSError, *, state: str = "", fix: str | None = None
) -> QprdError:
    """The error for what cannot be written.

    ``what`` begins its sentence (``"The results"``), ``state`` is a sentence about what was left
    unchanged, and ``fix``, what to do, follows by default from what the system says.
    """
    kind = DiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else QprdError
    if fix is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "Free some disk space and run it again."
    elif fix is None:
        fix = "Make the folder writable, or copy the project to a place that is."
    return kind(
        f"{what} cannot be written: {error.strerror or error}. {state}".rstrip(),
        where=str(where),
        fix=fix,
        exit_code=ExitCode.FAILED,
    )
