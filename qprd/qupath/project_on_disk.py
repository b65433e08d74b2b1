"""The common part of both backends: the project file, its entries with their slides, the lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from qprd.files.filestate import FileState
from qprd.files.layout import ProjectLayout
from qprd.files.session import WriteAccess, WriteSession
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.locate import SlideLocator
from qprd.qupath.project import Annotation, Entry, Project
from qprd.qupath.qpproj import ProjectFile, read_project_file
from qprd.qupath.reviews import read_judgments, with_judgments


class ProjectOnDisk(Project):
    """A project whose ``.qpproj`` file is read without QuPath.

    Raises:
        QprdError: no QuPath project, one of the folders is none, or links lead out of the project.
    """

    _entries: tuple[Entry, ...] | None

    def __init__(self, path: Path, *, slides: Sequence[Path] = ()) -> None:
        self._use(read_project_file(path), None)
        self.path, self.version = self._file.path, self._file.version
        self._opened_with: dict[str, Any] = {"slides": slides}
        ProjectLayout(self._file.path).refuse_links()
        self._locator = SlideLocator(self._file.path, self._file.uri, slides)
        self._access = WriteAccess(self._file.path, self.backend)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the project again."""
        return partial(type(self), self.path, **self._opened_with), ()

    @override
    def entries(self) -> Sequence[Entry]:
        if self._entries is None:
            self._entries = tuple(
                replace(entry, source=self._locator.locate(entry.source))
                for entry in self._file.entries
            )
        return self._entries

    @override
    def annotations(self, entry: Entry) -> Sequence[Annotation]:
        return with_judgments(self.annotations_in_qupath(entry), read_judgments(self.path, entry))

    @override
    def recorded_classes(self, entry: Entry) -> Sequence[str] | None:
        folder = EntryFolder.of(self.path, self._recorded(entry).id)
        return None if folder.recorded_annotations() is None else folder.recorded_classes()

    @contextmanager
    @override
    def writing(
        self,
        command: str,
        entries: Sequence[Entry] = (),
        *,
        dry_run: bool = False,
        wait: bool = False,
        will_continue: bool = False,
    ) -> Iterator[WriteSession]:
        ids = [entry.id for entry in entries]
        with self._access.session(
            command, ids, dry_run=dry_run, wait=wait, will_continue=will_continue
        ) as session:
            # Clearing up after a crash may have changed the project file.
            self._reread()
            yield session

    def _recorded(self, entry: Entry) -> Entry:
        """The entry as recorded, if it is of this project: its id becomes a name of files."""
        return self._file.entry(entry.id)

    def _reread(self) -> None:
        """Read the project file again, if it has changed."""
        state = FileState.of(self.path)
        if state != self._state:
            self._use(read_project_file(self.path), state)

    def _use(self, file: ProjectFile, state: FileState | None) -> None:
        """Know the project by what its file says in this state; None if the state is not known."""
        self._file, self._state = file, state
        self._entries = None
