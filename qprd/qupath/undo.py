"""Undo of a command: which files can be restored, and which parts of those of all images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from qprd.errors import QprdError
from qprd.files.backups import Run, Subject
from qprd.files.filestate import sha256_of
from qprd.files.transaction import FileTransaction, refuse_unless
from qprd.predictions import own_metadata
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.pathclasses import classes_path
from qprd.qupath.projectedit import stage_own_metadata
from qprd.qupath.qpproj import read_project_file

#: The digest of a file of the project, by its path inside it; None if there is no such file.
Digest = Callable[[str], str | None]


@dataclass(frozen=True)
class ChangedFile:
    """What a whole command did to one file.

    Attributes:
        before: SHA-256 of what it was, None if there was no such file.
        after: SHA-256 of what it became, None if it was removed.
        copy: The file as it was, None if there was none.
        only_ours: Whether nobody else changed it between two steps of the command.
    """

    path: str
    before: str | None
    after: str | None
    copy: Path | None
    only_ours: bool = True

    def is_ours(self, digest_of: Digest) -> bool:
        """Whether nobody else has changed the file since the command began."""
        now = digest_of(self.path)
        return now == self.before or (self.only_ours and now == self.after)

    def require_copy(self) -> None:
        """Make sure that the file as it was is still what it was."""
        if self.copy is not None and sha256_of(self.copy) != self.before:
            raise QprdError(
                "The backup is damaged or gone.",
                where=str(self.copy),
                fix="Run qprd remove, which takes out all that qprd wrote.",
            )


class CommandChanges:
    """What a command did to a project.

    Attributes:
        images: The images that it was not taken back on yet, by entry id.
        shared: The files of all images, such as ``project.qpproj``.
    """

    def __init__(self, run: Run, project: Path, digest_of: Digest) -> None:
        self._project = project
        self._digest_of = digest_of
        self.images: dict[str, Subject] = {}
        changed: dict[str, ChangedFile] = {}
        paths: dict[str, set[str]] = defaultdict(set)
        for step in run.steps:
            subject = step.manifest.subject
            if not step.manifest.undone:
                self.images[subject.entry_id] = subject
            for file in step.manifest.files:
                paths[subject.entry_id].add(file.path)
                earlier = changed.get(file.path)
                if earlier is None:
                    copy = None if file.before is None else step.copy_of(file.path)
                    changed[file.path] = ChangedFile(file.path, file.before, file.after, copy)
                else:
                    only_ours = earlier.only_ours and earlier.after == file.before
                    changed[file.path] = replace(earlier, after=file.after, only_ours=only_ours)
        names = {project.name, classes_path(project).relative_to(project.parent).as_posix()}
        self.shared = [changed[path] for path in changed if path in names]
        self._files = {
            entry_id: [changed[path] for path in sorted(paths[entry_id] - names)]
            for entry_id in self.images
        }

    def files(self, entry_id: str) -> list[ChangedFile]:
        """The files that are one image's alone."""
        return self._files[entry_id]

    def is_ours(self, entry_id: str) -> bool:
        """Whether nobody else has changed any file of an image since the command began."""
        return all(file.is_ours(self._digest_of) for file in self.files(entry_id))

    def earlier(self, entry_id: str) -> dict[str, Path | None]:
        """The files of an image, and those of all, as they were; by path inside the project.

        Raises:
            QprdError: they are not in the backup any more.
        """
        files = (*self.files(entry_id), *self.shared)
        for file in files:
            file.require_copy()
        return {file.path: file.copy for file in files}

    def stage_earlier(self, transaction: FileTransaction, entry_ids: Collection[str]) -> None:
        """Stage the files of images as they were, and what of the shared files is about them.

        The shared files become what they were if no image is left out and nobody changed them
        since. Else the project file keeps all but our metadata of these images, and the classes
        stay.
        """
        for entry_id in entry_ids:
            for file in sorted(self.files(entry_id), key=self._order):
                self._stage(transaction, file)
        is_whole = len(entry_ids) == len(self.images)
        for file in self.shared:
            if is_whole and file.is_ours(self._digest_of):
                self._stage(transaction, file)
            elif file.path == self._project.name and file.copy is not None:
                self._stage_metadata(transaction, file.copy, entry_ids)

    def _order(self, file: ChangedFile) -> int:
        """The summary before the data if it will count fewer objects, else after them.

        Should it come to a crash in between, it never claims more than there are: that would look
        like loss.
        """
        if PurePosixPath(file.path).name != "summary.json":
            return 1
        now = self._project.parent / file.path
        return 0 if _recorded(file.copy) < _recorded(now) else 2

    def _stage(self, transaction: FileTransaction, file: ChangedFile) -> None:
        target = self._project.parent / file.path
        transaction.expect(target)
        refuse_unless(file.is_ours(self._digest_of), target)
        if file.copy is None:
            transaction.stage_removal(target)
        else:
            transaction.stage_bytes(target, file.copy)

    def _stage_metadata(
        self, transaction: FileTransaction, copy: Path, entry_ids: Collection[str]
    ) -> None:
        project = self._project
        transaction.expect(project)
        now, before = (
            {entry.id: own_metadata(entry.metadata) for entry in read_project_file(file).entries}
            for file in (project, copy)
        )
        earlier = {one: before.get(one, {}) for one in entry_ids if one in now}
        if any(now[one] != metadata for one, metadata in earlier.items()):
            stage_own_metadata(transaction, project, earlier)


def _recorded(summary: Path | None) -> int:
    return 0 if summary is None else EntryFolder(summary.parent).recorded_objects() or 0
