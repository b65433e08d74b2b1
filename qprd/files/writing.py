"""Writing to a project: one command at a time, journaled, with a backup of each file it changes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import sync_folder, write_error
from qprd.files.backups import KeptFile, RunFolder, Subject, prune
from qprd.files.journal import Change, Journal, is_unfinished, recover
from qprd.files.layout import ProjectLayout, resolve_inside
from qprd.files.transaction import DryTransaction, FileTransaction


class WriteSession:
    """A command that writes to a project.

    Attributes:
        dry_run: Whether nothing is to be touched.
        notes: What the user should know: what an earlier command left unfinished.
    """

    def __init__(self, project: Path, run: RunFolder, *, dry_run: bool, notes: Sequence[str]):
        self._project = project
        self._run = run
        self.dry_run = dry_run
        self.notes = tuple(notes)

    @property
    def backup(self) -> Path | None:
        """Where the files are as they were; None if nothing was changed."""
        return self._run.folder

    def transaction(self, subject: Subject) -> FileTransaction:
        """Files to be replaced together; a step of the command's backup.

        Raises:
            QprdError: the folder of backups is a link out of the project.
        """
        root = self._project.parent
        if self.dry_run:
            return DryTransaction(root)
        return FileTransaction(root, ledger=_StepLedger(self._project, self._run, subject))


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
    def session(self, command: str, *, dry_run: bool = False) -> Iterator[WriteSession]:
        """Keep other commands of qprd from writing; first clear up what a crash left.

        Args:
            command: What the backups are kept under.
            dry_run: Touch nothing; then nobody is kept from writing either.

        Raises:
            QprdError: another command is writing, or the project's folder cannot be written.
        """
        if self._session is not None:
            raise RuntimeError("sessions cannot be nested")
        with contextlib.ExitStack() as stack:
            if dry_run:
                unfinished = is_unfinished(self._project)
                notes = ["An earlier write is unfinished; that would be cleared up first."]
                notes = notes if unfinished else []
            else:
                stack.enter_context(_locked(self._project))
                notes = recover(self._project)
                ProjectLayout(self._project).remove_leftovers(locked=True)
            run = RunFolder(self._project, command, self._backend)
            self._session = WriteSession(self._project, run, dry_run=dry_run, notes=notes)
            try:
                yield self._session
            finally:
                self._session = None
                if run.folder is not None:
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
    resolve_inside(path, project.parent)
    try:
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path, timeout=0)
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


class _StepLedger:
    """The journal and the backup of one transaction."""

    def __init__(self, project: Path, run: RunFolder, subject: Subject) -> None:
        self._root = project.parent.resolve()
        self._run = run
        self._subject = subject
        self._step = run.next_step()
        self._journal = Journal(project, self._step)

    def prepare(self, staged: Sequence[Path]) -> None:
        self._journal.prepare(staged)

    def copy_of(self, target: Path) -> Path:
        return self._step / target.relative_to(self._root)

    def begin(self, changes: Sequence[Change]) -> None:
        self._step.mkdir(parents=True, exist_ok=True)
        self._run.write(self._step, self._subject, self._files(changes))
        for folder in self._folders(changes):
            sync_folder(folder)
        self._journal.begin(changes)

    def _folders(self, changes: Sequence[Change]) -> set[Path]:
        """All folders of the backup whose names must be on the disk, up to that of backups."""
        backups = self._step.parent.parent
        kept = [change.original for change in changes if change.original is not None]
        inner = {folder for path in kept for folder in path.parents if backups in folder.parents}
        return inner | {self._step.parent, backups}

    def end(self, changes: Sequence[Change]) -> None:
        if not changes:
            self.abandon()
            return
        # If it stays, the next command finds that all of it was done.
        with contextlib.suppress(OSError):
            self._journal.end()
        self._run.done(self._step, self._files(changes))

    def abandon(self) -> None:
        shutil.rmtree(self._step, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._journal.end()
        self._run.clear()

    def _files(self, changes: Sequence[Change]) -> list[KeptFile]:
        return [
            KeptFile(change.target.relative_to(self._root).as_posix(), change.before, change.after)
            for change in changes
        ]
