"""JSON files, read with bounds, as strangers wrote them."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from pathlib import Path

from qprd.errors import QprdError, parse_fault, read_errors

#: Bytes that are read at once.
_CHUNK_BYTES = 2**18


def parse_json(text: str, *, what: str, where: str | None = None) -> object:
    """Parse JSON text; of repeated keys the last counts, ``NaN`` and ``Infinity`` are allowed.

    Errors say ``what`` it should be (``"a QuPath project"``) and ``where`` it is from.

    Raises:
        QprdError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not(what, f"it is not valid JSON ({parse_fault(error)})", where) from error


def _not(what: str, why: str, where: str | None) -> QprdError:
    return QprdError(
        f"This is not {what}: {why}.", where=where, fix="Restore the file, or give another one."
    )


def read_bytes(path: Path, *, what: str, limit_bytes: int) -> bytes:
    """Read a file of at most ``limit_bytes``; one named ``.gz`` is decompressed, up to as many.

    Raises:
        QprdError: it is missing, no plain file, too large, or unreadable.
    """
    with read_errors("This file", path):
        if not path.is_file():
            raise QprdError(
                f"There is no such file ({what} is expected).",
                where=str(path),
                fix="Check the path.",
            )
        try:
            with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
                # Python reserves as much as it is asked to read.
                chunks = iter(lambda: stream.read(_CHUNK_BYTES), b"")
                data = b"".join(itertools.islice(chunks, limit_bytes // _CHUNK_BYTES + 1))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _not(what, f"it is not a whole gzip file ({error})", str(path)) from error
    if len(data) > limit_bytes:
        raise QprdError(
            f"This is too large to be {what}: more than {limit_bytes // 2**20} MiB.",
            where=str(path),
            fix=f"Check that it is {what}.",
        )
    return data


def read_text(path: Path, *, what: str, limit_bytes: int) -> str:
    """Read a UTF-8 file of at most ``limit_bytes``.

    Raises:
        QprdError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, what=what, limit_bytes=limit_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not(what, "it is not UTF-8 text", str(path)) from error


def read_json(path: Path, *, what: str, limit_bytes: int) -> object:
    """Read a JSON file of at most ``limit_bytes``; see `read_text` and `parse_json`."""
    return parse_json(
        read_text(path, what=what, limit_bytes=limit_bytes), what=what, where=str(path)
    )


def well_formed(text: str) -> str:
    """Text with a question mark for each half of a surrogate pair.

    JSON may hold such halves; no UTF-8 file and no terminal can.
    """
    return text.encode(errors="replace").decode()
