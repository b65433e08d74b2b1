"""Undoing of a command: which files can be as they were, and which images not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from qprd.errors import QprdError
from qprd.files.backups import ImportedFrom, Run
from qprd.files.filestate import sha256_of
from qprd.files.transaction import FileTransaction
from qprd.predictions import own_metadata
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.pathclasses import classes_path
from qprd.qupath.projectedit import recorded_metadata, with_own_metadata
from qprd.qupath.qpproj import read_project_file

#: The digest of a file of the project, by its path inside it; None if there is no such file.
Digest = Callable[[str], str | None]


@dataclass(frozen=True)
class ChangedFile:
    """What a whole command did to one file.

    Attributes:
        path: Inside the project, with slashes.
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
        """Make sure that the file as it was is still what it was.

        Raises:
            QprdError: it is not.
        """
        if self.copy is not None and sha256_of(self.copy) != self.before:
            raise QprdError(
                "The backup is damaged or gone.",
                where=str(self.copy),
                fix="Run qprd remove, which takes out all that qprd wrote.",
            )


@dataclass(frozen=True)
class ChangedImage:
    """What a command did to one image.

    Attributes:
        entry_id: The project entry.
        image_name: Its name.
        files: The files that are this image's alone.
        imported: Where its annotations came from; None for predictions.
    """

    entry_id: str
    image_name: str
    files: tuple[ChangedFile, ...]
    imported: ImportedFrom | None

    def is_ours(self, digest_of: Digest) -> bool:
        """Whether nobody else has changed any of the files since the command began."""
        return all(file.is_ours(digest_of) for file in self.files)


@dataclass(frozen=True)
class ChangedProject:
    """What a command did.

    Attributes:
        images: Image by image.
        shared: Files of all images, such as ``project.qpproj``.
    """

    images: tuple[ChangedImage, ...]
    shared: tuple[ChangedFile, ...]

    def earlier(self, image: ChangedImage) -> dict[str, Path | None]:
        """The files of an image, and those of all, as they were; by path inside the project.

        Raises:
            QprdError: they are not in the backup any more.
        """
        files = (*image.files, *self.shared)
        for file in files:
            file.require_copy()
        return {file.path: file.copy for file in files}


def changes_of(run: Run, project: Path) -> ChangedProject:
    """Sum up the steps of a command on the images that it was not taken back on."""
    files: dict[str, ChangedFile] = {}
    subjects = {
        step.manifest.subject.entry_id: step.manifest.subject
        for step in run.steps
        if not step.manifest.undone
    }
    paths: dict[str, dict[str, None]] = {entry_id: {} for entry_id in subjects}
    for step in run.steps:
        for file in step.manifest.files:
            if not step.manifest.undone:
                paths[step.manifest.subject.entry_id][file.path] = None
            earlier = files.get(file.path)
            if earlier is None:
                copy = None if file.before is None else step.copy_of(file.path)
                files[file.path] = ChangedFile(file.path, file.before, file.after, copy)
            else:
                only_ours = earlier.only_ours and earlier.after == file.before
                files[file.path] = replace(earlier, after=file.after, only_ours=only_ours)
    shared = {project.name, classes_path(project).relative_to(project.parent).as_posix()}
    images = (
        ChangedImage(
            entry_id,
            subject.image_name,
            tuple(files[path] for path in paths[entry_id] if path not in shared),
            subject.imported,
        )
        for entry_id, subject in subjects.items()
    )
    return ChangedProject(tuple(images), tuple(files[path] for path in files if path in shared))


def stage_earlier(
    transaction: FileTransaction,
    project: Path,
    changed: ChangedProject,
    images: Sequence[ChangedImage],
    digest_of: Digest,
) -> None:
    """Stage the files of images as they were, and what of the shared files is about them.

    The shared files become what they were if no image is left out and nobody changed them since.
    Else the project file keeps all but our metadata of these images, and the classes stay.

    Args:
        transaction: Where to stage.
        project: The ``.qpproj`` file.
        changed: What the command did.
        images: Those of its images whose files nobody has changed since.
        digest_of: What the files are now.

    Raises:
        QprdError: a file cannot be read or written.
    """
    for image in images:
        for file in _in_order(image.files, project):
            _stage(transaction, project, file, digest_of)
    is_whole = len(images) == len(changed.images)
    for file in changed.shared:
        if is_whole and file.is_ours(digest_of):
            _stage(transaction, project, file, digest_of)
        elif file.path == project.name and file.copy is not None:
            _stage_metadata(transaction, project, file.copy, images)


def _in_order(files: Sequence[ChangedFile], project: Path) -> list[ChangedFile]:
    """The summary before the data if it will count fewer objects, else after them.

    Should it come to a crash in between, it never claims more than there are: that would look like
    loss.
    """
    summaries = [file for file in files if PurePosixPath(file.path).name == "summary.json"]
    is_first = any(
        _recorded(summary.copy) < _recorded(project.parent / summary.path) for summary in summaries
    )
    return sorted(files, key=lambda file: (file in summaries) != is_first)


def _recorded(summary: Path | None) -> int:
    return 0 if summary is None else EntryFolder(summary.parent).recorded_objects() or 0


def _stage(
    transaction: FileTransaction, project: Path, file: ChangedFile, digest_of: Digest
) -> None:
    target = project.parent / file.path
    transaction.expect(target)
    file.require_copy()
    if not file.is_ours(digest_of):
        raise QprdError(
            "This file has just been changed; nothing was touched.",
            where=str(target),
            fix="Close the project in QuPath, then run it again.",
        )
    if file.copy is None:
        transaction.stage_removal(target)
    else:
        transaction.stage_copy(target, file.copy)


def _stage_metadata(
    transaction: FileTransaction, project: Path, copy: Path, images: Sequence[ChangedImage]
) -> None:
    transaction.expect(project)
    there = {entry.id: own_metadata(entry.metadata) for entry in read_project_file(project).entries}
    earlier = {
        image.entry_id: recorded_metadata(copy, image.entry_id)
        for image in images
        if image.entry_id in there
    }
    if any(there[entry_id] != metadata for entry_id, metadata in earlier.items()):
        transaction.stage_text(project, with_own_metadata(project, earlier))
