"""What a file is now: its contents as a digest, the notice that others changed it, what failed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qprd.errors import ExitCode, QprdError


@dataclass(frozen=True)
class FileState:
    """What a file was at some time; equal states mean that nobody has written it since.

    Attributes:
        size: In bytes, None if there was no such file.
        modified_ns: Time of the last change.
        sha256: Of the contents, None if there was no such file.
    """

    size: int | None = None
    modified_ns: int = 0
    sha256: str | None = None

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file now.

        Raises:
            QprdError: it cannot be looked at.
        """
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                digest = _sha256(file)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise QprdError(
                f"This file cannot be read: {error.strerror}.", where=str(path)
            ) from error
        return cls(status.st_size, status.st_mtime_ns, digest)


def sha256_of(path: Path) -> str | None:
    """The digest of a file's contents, None if there is no such file.

    Raises:
        QprdError: it cannot be read.
    """
    return FileState.of(path).sha256


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Force a file's contents to the disk.

    Raises:
        OSError: that fails.
    """
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


def write_error(path: Path, error: OSError) -> QprdError:
    """Say why a file cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        problem, fix = "The disk is full", "Free some space and run it again."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        problem, fix = "This folder cannot be written", "Get write access, or copy the project."
    else:
        problem, fix = f"This file cannot be written ({error.strerror})", None
    return QprdError(
        f"{problem}; the project is as it was.",
        where=str(path),
        fix=fix,
        exit_code=ExitCode.FAILED,
    )
