"""JSON files: read with bounds, as strangers wrote them; written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from qprd.errors import ExitCode, QprdError
from qprd.layout import resolve_inside

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def parse_json(text: str, *, what: str, where: str | None = None) -> object:
    """Parse JSON text; of repeated keys the last counts, ``NaN`` and ``Infinity`` are allowed.

    Args:
        text: The JSON.
        what: What it should be, for the error: ``"a QuPath project"``.
        where: Where it is from, for the error.

    Raises:
        QprdError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise QprdError(f"This is not {what}: it is nested too deeply.", where=where) from error
    except ValueError as error:
        raise QprdError(
            f"This is not {what}: it is not valid JSON ({error}).", where=where
        ) from error


def read_text(path: Path, *, what: str, limit_bytes: int) -> str:
    """Read a UTF-8 file of at most ``limit_bytes``.

    Raises:
        QprdError: it is missing, no plain file, too large, unreadable, or not UTF-8.
    """
    try:
        if not path.is_file():
            raise QprdError(f"There is no such file ({what} is expected).", where=str(path))
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise QprdError(f"This file cannot be read: {error.strerror}.", where=str(path)) from error
    if len(data) > limit_bytes:
        raise QprdError(
            f"This is too large to be {what}: more than {limit_bytes // 2**20} MiB.",
            where=str(path),
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise QprdError(f"This is not {what}: it is not UTF-8 text.", where=str(path)) from error


def read_json(path: Path, *, what: str, limit_bytes: int) -> object:
    """Read a JSON file of at most ``limit_bytes``; see `read_text` and `parse_json`.

    Raises:
        QprdError: as these two.
    """
    return parse_json(
        read_text(path, what=what, limit_bytes=limit_bytes), what=what, where=str(path)
    )


def well_formed(text: str) -> str:
    """Text with a question mark for each half of a surrogate pair.

    JSON may hold such halves; no UTF-8 file and no terminal can.
    """
    return text.encode(errors="replace").decode()


def write_atomically(path: Path, text: str, *, root: Path, check: Callable[[Path], None]) -> None:
    """Write a file completely or not at all; an earlier one stays as it is until then.

    The text goes to a new file in the same folder, is forced to the disk, checked there, and only
    then takes the place of the earlier file.

    Args:
        path: The file; its folder is made if need be.
        text: What to write, as UTF-8.
        root: The folder of the project; links that lead out of it are refused.
        check: Reads the new file before it takes its place; what it raises stops the writing.

    Raises:
        QprdError: the path is a link out of the project, the disk is full, the folder cannot be
            written, or ``check`` raised it.
    """
    path = resolve_inside(path, root)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        temporary.replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Force the rename to the disk, where the system can (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_error(path: Path, error: OSError) -> QprdError:
    if error.errno in _NO_SPACE:
        problem, fix = "The disk is full.", "Free some space and run it again."
    elif error.errno in _NOT_WRITABLE:
        problem, fix = "This folder cannot be written.", "Get write access, or copy the project."
    else:
        problem, fix = f"This file cannot be written: {error.strerror}.", None
    return QprdError(
        f"{problem} Nothing was changed.",
        where=str(path),
        fix=fix,
        exit_code=ExitCode.FAILED,
    )
