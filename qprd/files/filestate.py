"""The state of a file: its contents as a digest, and whether others have changed it since."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from qprd.errors import read_errors


@dataclass(frozen=True)
class FileState:
    """What a file was at some time; equal states mean that nobody has written it since.

    Attributes:
        size: In bytes, None if there was no such file.
        sha256: Of the contents, None if there was no such file.
    """

    size: int | None = None
    modified_ns: int = 0
    sha256: str | None = None

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file now."""
        with read_errors("This file", path):
            try:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    digest = _sha256(file)
            except FileNotFoundError:
                return cls()
        return cls(status.st_size, status.st_mtime_ns, digest)


def sha256_of(path: Path) -> str | None:
    """The digest of a file's contents, None if there is no such file."""
    return FileState.of(path).sha256


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
