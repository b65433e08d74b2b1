"""Writing to a project: under its lock, journaled, with a backup of each file that changes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from typing_extensions import override

from qprd.files.atomic import sync_folder
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
    recover,
    write_journal,
)
from qprd.files.layout import ProjectLayout
from qprd.files.lock import locked
from qprd.files.transaction import DryTransaction, FileTransaction
from qprd.version import __version__


class WriteSession:
    """A command that writes to a project; its backup is a folder with a step for each transaction.

    Attributes:
        notes: What the user should know: what an earlier command left unfinished.
        left: By path, the digest of what the command has made of each file that it has changed.
    """

    def __init__(self, project: Path, command: str, backend: str, *, dry_run: bool) -> None:
        self.project = project
        self.command = command
        self.backend = backend
        self.dry_run = dry_run
        self.notes: tuple[str, ...] = ()
        self.left: dict[str, str | None] = {}
        self._folder: Path | None = None
        self._steps = 0

    @property
    def backup(self) -> Path | None:
        """Where the files are as they were; None if nothing was changed."""
        return self._folder if self.left else None

    def clear_up(self) -> None:
        """Finish or take back what a crash left, and remove what else it left."""
        self.notes += tuple(recover(self.project))
        remove_broken_off(self.project)
        ProjectLayout(self.project).remove_leftovers(locked=True)

    def continue_run(self, run: Run) -> None:
        """Add to the backup of the same command, which was broken off."""
        self._folder = run.folder
        for step in run.steps:
            self._steps = int(step.folder.name)
            self.left |= {file.path: file.after for file in step.manifest.files}

    def transaction(self, subject: Subject) -> FileTransaction:
        """Files to be replaced together; a step of the command's backup."""
        layout, root = ProjectLayout(self.project), self.project.parent
        if self.dry_run:
            return DryTransaction(root, link=layout.root)
        if self._folder is None:
            backups = layout.inside(layout.backups)
            self._folder = backups / new_run_name(self.project)
        self._steps += 1
        return _Step(self, self._folder / f"{self._steps:04d}", subject)

    def finish(self) -> None:
        """The command came to its end: running it again is another command."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / UNFINISHED).unlink(missing_ok=True)


class _Step(FileTransaction):
    """A transaction with a journal and a backup."""

    def __init__(self, session: WriteSession, folder: Path, subject: Subject) -> None:
        super().__init__(session.project.parent, link=ProjectLayout(session.project).root)
        self._session = session
        self._project = session.project
        self._folder = folder
        self._subject = subject

    @override
    def _place_of_copy(self, target: Path) -> Path:
        return self._folder / target.relative_to(self._root)

    @override
    def _begin(self, changes: Sequence[Change]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        run = self._folder.parent
        (run / UNFINISHED).touch()
        # Their names must be on the disk before the journal names them.
        below = (path for path in self._folder.rglob("*") if path.is_dir())
        for folder in (*below, self._folder, run, run.parent):
            sync_folder(folder)
        manifest = Manifest(
            command=self._session.command,
            backend=self._session.backend,
            qprd=__version__,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            subject=self._subject,
            files=tuple(change.recorded(self._root) for change in changes),
            folder=self._folder.relative_to(self._root).as_posix(),
        )
        write_journal(self._project, manifest)

    @override
    def _end(self, changes: Sequence[Change]) -> None:
        # If the journal stays, the next command finds that all of it was done.
        with contextlib.suppress(OSError):
            if changes:
                close_journal(self._project, self._folder)
        left = self._session.left
        for change in changes:
            path = change.target.relative_to(self._root).as_posix()
            if change.original and left.get(path) == change.before:
                with contextlib.suppress(OSError):
                    change.original.unlink(missing_ok=True)
            left[path] = change.after

    @override
    def _abandon(self) -> None:
        with contextlib.suppress(OSError):
            drop_journal(self._project, self._folder)


class WriteAccess:
    """How a backend gets to write: within a session, or with one for each call."""

    def __init__(self, project: Path, backend: str) -> None:
        self._project = project
        self._backend = backend
        self._session: WriteSession | None = None
        self._latest: WriteSession | None = None

    @contextmanager
    def session(
        self,
        command: str,
        entry_ids: Collection[str] = (),
        *,
        dry_run: bool = False,
        wait: bool = False,
        will_continue: bool = False,
    ) -> Iterator[WriteSession]:
        """Keep other commands of qprd from writing; first clear up what a crash left.

        The arguments are those of `qprd.qupath.project.Project.writing`, with ids in place of
        entries. A dry run keeps nobody from writing.

        Raises:
            QprdError: another command is writing and is not waited for, or the project's folder
                cannot be written.
        """
        if self._session is not None:
            raise RuntimeError("sessions cannot be nested")
        session = WriteSession(self._project, command, self._backend, dry_run=dry_run)
        with contextlib.nullcontext() if dry_run else locked(self._project, wait=wait):
            if not dry_run:
                session.clear_up()
                earlier = broken_off(self._project, command, entry_ids)
                if earlier is not None:
                    session.continue_run(earlier)
                    if self._latest is None or self._latest.backup != session.backup:
                        session.notes += (
                            f"This continues the {command} of {earlier.time}: qprd undo takes "
                            "back both together.",
                        )
            elif is_unfinished(self._project):
                session.notes = ("An earlier write is unfinished; that would be cleared up first.",)
            self._session = self._latest = session
            try:
                yield session
            finally:
                self._session = None
                if session.backup is not None:
                    prune(self._project)
            # Last of all: killed before, the command counts as broken off.
            if not will_continue:
                session.finish()

    def note(self, text: str) -> None:
        """Tell the user of the command that is writing."""
        if self._session is not None:
            self._session.notes += (text,)

    @contextmanager
    def transaction(self, subject: Subject, command: str) -> Iterator[FileTransaction]:
        """A transaction of the session; without one, of a session of its own."""
        with contextlib.ExitStack() as stack:
            session = self._session or stack.enter_context(self.session(command))
            yield stack.enter_context(session.transaction(subject))
