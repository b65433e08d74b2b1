"""Writing to a project: one command at a time, journaled, with a backup of each file it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import override

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import remove_if_empty, sync_folder, write_error
from qprd.files.backups import (
    UNFINISHED,
    Manifest,
    Run,
    Subject,
    broken_off,
    new_run_name,
    prune,
    remove_broken_off,
)
from qprd.files.journal import (
    Change,
    close_journal,
    drop_journal,
    is_unfinished,
    kept_file,
    recover,
    write_journal,
)
from qprd.files.layout import ProjectLayout
from qprd.files.transaction import Backup, DryTransaction, FileTransaction
from qprd.version import __version__


class WriteSession:
    """A command that writes to a project; its backup is a folder with a step for each transaction.

    Args:
        project: The ``.qpproj`` file.
        command: Such as ``write-back``.
        backend: Name of the backend that writes.
        dry_run: Whether nothing is to be touched.
        notes: What the user should know: what an earlier command left unfinished.
        broken_off: The same command, broken off earlier, whose backup this one goes on with.
    """

    def __init__(
        self,
        project: Path,
        command: str,
        backend: str,
        *,
        dry_run: bool,
        notes: Sequence[str],
        broken_off: Run | None = None,
    ) -> None:
        self.project = project
        self.command = command
        self.backend = backend
        self.dry_run = dry_run
        self.notes = tuple(notes)
        #: By path, the digest of what the command has made of each file that it has changed.
        self.left: dict[str, str | None] = {}
        self._folder: Path | None = None
        self._steps = 0
        if broken_off is not None:
            self._folder = broken_off.folder
            for step in broken_off.steps:
                self._steps = int(step.folder.name)
                self.left |= {file.path: file.after for file in step.manifest.files}

    @property
    def backup(self) -> Path | None:
        """Where the files are as they were; None if nothing was changed."""
        return self._folder if self.left else None

    def finish(self) -> None:
        """The command came to its end: running it again is another command."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / UNFINISHED).unlink(missing_ok=True)
                remove_if_empty(self._folder)

    def transaction(self, subject: Subject) -> FileTransaction:
        """Files to be replaced together; a step of the command's backup.

        Raises:
            QprdError: the folder of backups is a link out of the project.
        """
        layout, root = ProjectLayout(self.project), self.project.parent
        if self.dry_run:
            return DryTransaction(root, link=layout.root)
        if self._folder is None:
            backups = layout.inside(layout.backups)
            self._folder = backups / new_run_name(self.project)
        self._steps += 1
        backup = _StepBackup(self, self._folder / f"{self._steps:04d}", subject)
        return FileTransaction(root, backup, link=layout.root)


class _StepBackup(Backup):
    """The journal and the backup of one transaction."""

    def __init__(self, session: WriteSession, folder: Path, subject: Subject) -> None:
        super().__init__()
        self._session = session
        self._project = session.project
        self._root = session.project.parent.resolve()
        self._folder = folder
        self._subject = subject

    @override
    def copy_of(self, target: Path) -> Path:
        return self._folder / target.relative_to(self._root)

    @override
    def begin(self, changes: Sequence[Change]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder.parent / UNFINISHED).touch()
        # All folders of the backup whose names must be on the disk, up to that of backups.
        backups = self._folder.parent.parent
        kept = [change.original for change in changes if change.original is not None]
        folders = {folder for path in kept for folder in path.parents if backups in folder.parents}
        for folder in folders | {self._folder, self._folder.parent, backups}:
            sync_folder(folder)
        manifest = Manifest(
            command=self._session.command,
            backend=self._session.backend,
            qprd=__version__,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            subject=self._subject,
            files=tuple(kept_file(change, self._root) for change in changes),
            folder=self._folder.relative_to(self._root).as_posix(),
        )
        write_journal(self._project, manifest)

    @override
    def end(self, changes: Sequence[Change]) -> None:
        # If the journal stays, the next command finds that all of it was done.
        with contextlib.suppress(OSError):
            if changes:
                close_journal(self._project, self._folder)
        for change in changes:
            path = change.target.relative_to(self._root).as_posix()
            if change.original and self._session.left.get(path) == change.before:
                with contextlib.suppress(OSError):
                    change.original.unlink(missing_ok=True)
            self._session.left[path] = change.after

    @override
    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            drop_journal(self._project, self._folder)


class WriteAccess:
    """How a backend gets to write: within a session, or with one for each call.

    Args:
        project: The ``.qpproj`` file.
        backend: Its name.
    """

    def __init__(self, project: Path, backend: str) -> None:
        self._project = project
        self._backend = backend
        self._session: WriteSession | None = None

    @contextmanager
    def session(
        self, command: str, entry_ids: Collection[str] = (), *, dry_run: bool = False
    ) -> Iterator[WriteSession]:
        """Keep other commands of qprd from writing; first clear up what a crash left.

        Args:
            command: What the backups are kept under.
            entry_ids: The entries that it is about; see `qprd.qupath.project.Project.writing`.
            dry_run: Touch nothing; then nobody is kept from writing either.

        Raises:
            QprdError: another command is writing, or the project's folder cannot be written.
        """
        if self._session is not None:
            raise RuntimeError("sessions cannot be nested")
        notes: list[str] = []
        earlier = None
        with contextlib.ExitStack() as stack:
            if not dry_run:
                stack.enter_context(_locked(self._project))
                notes = recover(self._project)
                remove_broken_off(self._project)
                ProjectLayout(self._project).remove_leftovers(locked=True)
                earlier = broken_off(self._project, command, entry_ids)
                if earlier is not None:
                    notes.append(
                        f"The {command} of {earlier.time} was broken off; qprd undo takes it back "
                        "together with this one."
                    )
            elif is_unfinished(self._project):
                notes = ["An earlier write is unfinished; that would be cleared up first."]
            session = WriteSession(
                self._project,
                command,
                self._backend,
                dry_run=dry_run,
                notes=notes,
                broken_off=earlier,
            )
            self._session = session
            try:
                yield session
                session.finish()
            finally:
                self._session = None
                if session.backup is not None:
                    prune(self._project)

    @contextmanager
    def transaction(self, subject: Subject, command: str) -> Iterator[FileTransaction]:
        """A transaction of the session; without one, of a session of its own.

        Raises:
            QprdError: as `session`.
        """
        with contextlib.ExitStack() as stack:
            session = self._session or stack.enter_context(self.session(command))
            yield stack.enter_context(session.transaction(subject))


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
        # Who cannot open it cannot tell.
        return False


@contextmanager
def _locked(project: Path) -> Iterator[None]:
    """Hold the project's lock, which the system takes back from a process that dies."""
    path = ProjectLayout(project).lock
    ProjectLayout(project).inside(path)
    lock = FileLock(path, timeout=0)
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
