"""Several files replaced together or not at all, and the notice that others changed them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from qprd.errors import ExitCode, QprdError
from qprd.layout import resolve_inside


@dataclass(frozen=True)
class FileState:
    """What a file was at some time; equal states mean that nobody has written it since.

    Attributes:
        size: In bytes, None if there was no such file.
        modified_ns: Time of the last change.
        inode: QuPath saves to a new file, which shows here if nowhere else.
        sha256: Of the contents, where they were asked for.
    """

    size: int | None = None
    modified_ns: int = 0
    inode: int = 0
    sha256: str | None = None

    @classmethod
    def of(cls, path: Path, *, contents: bool = False) -> FileState:
        """The state of a file now.

        Raises:
            QprdError: it cannot be looked at.
        """
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                digest = _sha256(file) if contents else None
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise QprdError(
                f"This file cannot be read: {error.strerror}.", where=str(path)
            ) from error
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


class FileTransaction:
    """Prepare new files beside the old ones, then put all of them in their places or none.

    As a context manager it removes whatever was prepared and not committed.

    Args:
        root: The folder of the project; links that lead out of it are refused.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staged: dict[Path, Path] = {}
        self._leftovers: list[Path] = []

    def stage(self, target: Path) -> Path:
        """A path beside ``target``, for the caller to write what is to take its place.

        Raises:
            QprdError: the target is a link out of the project, or its folder cannot be made.
        """
        # What a symbolic link points to is replaced, not the link.
        target = resolve_inside(target, self._root)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(target, error) from error
        self._staged[target] = self._beside(target)
        return self._staged[target]

    def stage_text(self, target: Path, text: str) -> Path:
        """Stage JSON text as UTF-8, forced to the disk.

        Raises:
            QprdError: as `stage`, a full disk, or a folder that cannot be written.
        """
        path = self.stage(target)
        try:
            # Half of a surrogate pair, which has no UTF-8, becomes its JSON escape.
            with path.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(target, error) from error
        return path

    def commit(self, first: Path | None = None) -> None:
        """Put the staged files in their places; if one cannot be, the others go back.

        Args:
            first: The target to replace before the others, which follow in the order of staging.

        Raises:
            QprdError: a file cannot be replaced; all are as they were.
        """
        first = first.resolve() if first is not None else None
        originals: dict[Path, Path | None] = {}
        target = Path()
        try:
            for target in sorted(self._staged, key=lambda staged: staged != first):
                originals[target] = self._keep_original(target)
                self._staged[target].replace(target)
        except BaseException as error:
            for changed, original in reversed(originals.items()):
                if original is not None:
                    original.replace(changed)
                elif not self._staged[changed].exists():
                    changed.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise write_error(target, error) from error
            raise
        self._staged.clear()

    def _keep_original(self, target: Path) -> Path | None:
        """A second name for the file that is about to be replaced."""
        if not target.exists():
            return None
        with contextlib.suppress(OSError):
            shutil.copymode(target, self._staged[target])
        original = self._beside(target)
        try:
            os.link(target, original)
        except OSError:
            # No hard links on this file system.
            shutil.copy2(target, original)
        return original

    def _beside(self, target: Path) -> Path:
        path = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        self._leftovers.append(path)
        return path

    def __enter__(self) -> FileTransaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for path in self._leftovers:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


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
