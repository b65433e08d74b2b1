"""Several files replaced together or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import (
    remove_if_empty,
    sync_file,
    sync_folder,
    temporary_name,
    write_error,
)
from qprd.files.filestate import FileState, sha256_of
from qprd.files.journal import Change, apply, take_back
from qprd.files.layout import resolve_inside


class FileTransaction:
    """Prepare new files beside the old ones, then put all of them in their places or none.

    As a context manager it removes whatever was prepared and not committed. Meanwhile the old files
    are kept beside the new ones; `qprd.files.session` keeps them for longer, with a journal. Links
    out of its root are refused, but for ``link``, as for `qprd.files.layout.resolve_inside`.
    """

    def __init__(self, root: Path, *, link: Path | None = None) -> None:
        self._root = root.resolve()
        self._link = link
        self._staged: dict[Path, Path | None] = {}
        self._copies: list[Path] = []
        self._expected: dict[Path, FileState] = {}
        self._made: list[Path] = []

    def expect(self, path: Path) -> None:
        """Refuse to commit if this file changes from now on.

        Raises:
            QprdError: it cannot be read, or is a link out of the project.
        """
        self._expected[self._place(path)] = FileState.of(path)

    def stage(self, target: Path) -> Path:
        """A path, for the caller to write what is to take the place of ``target``.

        Raises:
            QprdError: the target is a link out of the project, or its folder cannot be made.
        """
        # What a symbolic link points to is replaced, not the link.
        target = self._place(target)
        staged = self._temporary(target)
        self._staged[target] = staged
        try:
            if not staged.parent.exists():
                self._made.append(staged.parent)
                staged.parent.mkdir(parents=True)
        except OSError as error:
            raise _not_written(target, error) from error
        return staged

    def stage_text(self, target: Path, text: str) -> Path:
        """Stage JSON text as UTF-8, forced to the disk."""
        # Half of a surrogate pair, which has no UTF-8, becomes its JSON escape.
        return self.stage_bytes(target, text.encode(errors="backslashreplace"))

    def stage_bytes(self, target: Path, content: bytes | Path) -> Path:
        """Stage the contents of a file, or those of another file, forced to the disk.

        Raises:
            QprdError: as `stage`, a full disk, or a folder that cannot be written.
        """
        path = self.stage(target)
        try:
            if isinstance(content, Path):
                shutil.copy2(content, path)
            else:
                path.write_bytes(content)
            sync_file(path)
        except OSError as error:
            raise _not_written(target, error) from error
        return path

    def stage_removal(self, target: Path) -> None:
        """The file is to be removed."""
        self._staged[self._place(target)] = None

    def commit(self, first: Path | None = None) -> tuple[Path, ...]:
        """Put the staged files in their places; if one cannot be, the others go back.

        The target ``first`` is replaced before the others, which follow in the order of staging. A
        file that already has its new contents is left alone.

        Returns:
            The files that changed.

        Raises:
            QprdError: a file cannot be replaced, or one that was expected to stay as it was did
                not; all are as they were.
        """
        first = self._place(first) if first is not None else None
        changes: list[Change] = []
        target = Path()
        try:
            for target, before, after in self._differing():
                staged = self._staged[target]
                original = None if before is None else self._kept(target, staged)
                changes.append(Change(target, staged, original, before, after))
            changes.sort(key=lambda change: change.target != first)
            if changes:
                self._begin(changes)
            for change in changes:
                target = change.target
                # Writing the journal took a while.
                refuse_unless(sha256_of(target) == change.before, target)
                apply(change)
            for change in changes:
                refuse_unless(change.is_as_meant(), change.target)
        except BaseException as error:
            self._take_back(changes)
            if isinstance(error, OSError):
                raise _not_written(target, error) from error
            raise
        made_in = {folder.parent for folder in self._made}
        for folder in {change.target.parent for change in changes} | made_in:
            sync_folder(folder)
        self._end(changes)
        for change in changes:
            if change.staged is None:
                remove_if_empty(change.target.parent)
        return tuple(change.target for change in changes)

    def _place(self, path: Path) -> Path:
        return resolve_inside(path, self._root, link=self._link)

    def _differing(self) -> Iterator[tuple[Path, str | None, str | None]]:
        """Targets whose contents are to change, and the digests before and after."""
        for path, state in self._expected.items():
            if path not in self._staged:
                refuse_unless(FileState.of(path) == state, path)
        for target, staged in self._staged.items():
            now = FileState.of(target)
            refuse_unless(now == self._expected.get(target, now), target)
            after = None if staged is None else sha256_of(staged)
            if now.sha256 != after:
                yield target, now.sha256, after

    def _take_back(self, changes: Sequence[Change]) -> None:
        try:
            left = take_back(changes)
        except OSError as error:
            raise QprdError(
                f"A failed write could not be taken back ({error.strerror or error}).",
                where=str(self._root),
                fix="Run the command again: what writes to the project next tries to clear it up.",
                exit_code=ExitCode.FAILED,
            ) from error
        if left:
            # Others have changed what we had replaced: its backup is worth keeping.
            self._end(changes)
        else:
            self._abandon()

    def _kept(self, target: Path, staged: Path | None) -> Path:
        """A second name for the file that is about to be replaced."""
        if staged is not None:
            with contextlib.suppress(OSError):
                shutil.copymode(target, staged)
        original = self._place_of_copy(target)
        original.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(target, original)
        except OSError:
            # No hard links on this file system.
            shutil.copy2(target, original)
            sync_file(original)
        return original

    def _temporary(self, target: Path) -> Path:
        return temporary_name(target)

    def _place_of_copy(self, target: Path) -> Path:
        self._copies.append(temporary_name(target))
        return self._copies[-1]

    def _begin(self, changes: Sequence[Change]) -> None:
        """These files are about to be replaced."""

    def _end(self, changes: Sequence[Change]) -> None:
        """All were replaced."""

    def _abandon(self) -> None:
        """Nothing was replaced, or all was taken back."""

    def _discard(self) -> None:
        for path in (*self._staged.values(), *self._copies):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        for folder in self._made:
            remove_if_empty(folder)

    def __enter__(self) -> FileTransaction:
        return self

    def __exit__(self, *exc: object) -> None:
        self._discard()


def refuse_unless(is_as_it_was: bool, path: Path) -> None:
    """Raise if somebody else has changed a file."""
    if not is_as_it_was:
        raise QprdError(
            "This file has changed while qprd was writing; nothing was written.",
            where=str(path),
            fix="Close the project in QuPath, then run it again (after a prediction, qprd "
            "write-back is enough).",
        )


def _not_written(path: Path, error: OSError) -> QprdError:
    return write_error("This file", path, error, state="All files are as they were.")


class DryTransaction(FileTransaction):
    """A transaction that touches nothing: new files are written elsewhere, and then discarded."""

    def __init__(self, root: Path, *, link: Path | None = None) -> None:
        super().__init__(root, link=link)
        self._elsewhere = Path(tempfile.mkdtemp(prefix="qprd-dry-run-"))

    def _temporary(self, target: Path) -> Path:
        return self._elsewhere / temporary_name(target).name

    def commit(self, first: Path | None = None) -> tuple[Path, ...]:  # noqa: ARG002
        """The files that would change.

        Raises:
            QprdError: one that was expected to stay as it was did not.
        """
        return tuple(target for target, _, _ in self._differing())

    def _discard(self) -> None:
        shutil.rmtree(self._elsewhere, ignore_errors=True)
