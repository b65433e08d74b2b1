"""``qprd undo``: take back what a command wrote into a project, and nothing that came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.atomic import remove_folder
from qprd.files.backups import UNDO, Run, Subject, undoable
from qprd.files.filestate import sha256_of
from qprd.files.layout import ProjectLayout
from qprd.files.writing import WriteSession
from qprd.jobs.reporting import NOTHING_TOUCHED, RELOAD, changed_files
from qprd.progress import Progress
from qprd.qupath.project import Project
from qprd.qupath.undo import ChangedImage, ChangedProject, changes_of, stage_earlier


@dataclass(frozen=True)
class UndoneCommand:
    """What became of one command.

    Attributes:
        command: Such as ``write-back``.
        time: When it ran, ISO 8601, UTC.
        restored: Images whose files are as they were before it.
        own_only: Images that a person has worked on since: only what is qprd's went back.
        files: Files that changed, or would change.
        removed: Those of them that there were not before, and which are gone.
        problems: Image name and reason of each image that stays as it is.
    """

    command: str
    time: str
    restored: tuple[str, ...]
    own_only: tuple[str, ...]
    files: tuple[Path, ...]
    removed: tuple[Path, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class UndoSummary:
    """What an undo did.

    Attributes:
        project: The project file.
        backend: Name of the backend that wrote.
        in_qupath: Whether QuPath's own data were written; else a script does the rest there.
        commands: What was taken back, the newest first.
        left: Number of commands that can still be taken back.
        notes: What else the user should know.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
    in_qupath: bool
    commands: tuple[UndoneCommand, ...]
    left: int
    notes: tuple[str, ...]
    dry_run: bool

    @property
    def failed(self) -> int:
        """Images that stay as they are."""
        return sum(len(command.problems) for command in self.commands)

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [f"note: {note}" for note in self.notes]
        for command in self.commands:
            lines += self._lines_of(command)
        if self.dry_run:
            return [*lines, NOTHING_TOUCHED]
        if self.left:
            lines.append(f"{self.left} earlier ones can still be taken back: qprd undo")
        changed = any(command.files for command in self.commands)
        if changed and self.in_qupath:
            lines.append(RELOAD)
        elif changed:
            lines.append(
                "What a Groovy script brought into QuPath is still there: "
                "groovy/import_predictions.groovy takes predictions out again."
            )
        return lines

    def _lines_of(self, command: UndoneCommand) -> list[str]:
        took, went = ("Would take", "would go") if self.dry_run else ("Took", "went")
        count = len(command.restored) + len(command.own_only)
        lines = [f"{took} back {command.command} of {command.time} on {count} images."]
        lines += [
            f"{name}: changed since; only what is qprd's {went} back" for name in command.own_only
        ]
        if self.dry_run:
            lines += [f"{name}: becomes what it was before" for name in command.restored]
            replaced = [file for file in command.files if file not in command.removed]
            if replaced or not command.removed:
                lines.append(changed_files(replaced, self.project))
            if command.removed:
                lines.append(changed_files(command.removed, self.project, "removes"))
        return [*lines, *(f"not taken back: {problem}" for problem in command.problems)]


def undo_project(
    project: Project, *, everything: bool = False, dry_run: bool = False, progress: Progress
) -> UndoSummary:
    """Take back the last command that wrote to a project, or all whose backups are kept.

    Files that nobody has changed since become what they were, byte for byte, all together or none.
    An image that a person has worked on since keeps that work: our objects alone become those of
    before, or where that cannot be, it stays as it is and is reported.

    Args:
        project: The project.
        everything: Take back all commands, the newest first.
        dry_run: Say what would change, and touch nothing.
        progress: Shows what takes long.

    Raises:
        QprdError: there is nothing to take back, another command is writing, or a file cannot be
            read or written.
    """
    with project.writing(UNDO, dry_run=dry_run) as session:
        runs = undoable(project.path)
        if not runs:
            raise QprdError(
                "There is nothing to take back.",
                where=str(ProjectLayout(project.path).backups),
                fix="Run qprd remove, which takes out all that qprd wrote.",
            )
        undoing = _Undoing(project, session)
        commands = []
        chosen = runs if everything else runs[:1]
        with progress.task("taking back", len(chosen)) as task:
            for run in chosen:
                commands.append(undoing.take_back(run))
                task.advance()
        left = len(undoable(project.path)) if not dry_run else len(runs) - len(chosen)
    return UndoSummary(
        project=project.path,
        backend=project.backend,
        in_qupath=project.writes_qupath_data,
        commands=tuple(commands),
        left=left,
        notes=session.notes,
        dry_run=dry_run,
    )


class _Undoing:
    """Takes back one command after the other, the newest first."""

    def __init__(self, project: Project, session: WriteSession) -> None:
        self._project = project
        self._session = session
        #: In a dry run, digests of what files would be by then.
        self._would_be: dict[str, str | None] = {}
        #: Ids of the images of which a later command could not be taken back.
        self._stuck: set[str] = set()

    def take_back(self, run: Run) -> UndoneCommand:
        """Take back a command on all images where that is possible."""
        changed = changes_of(run, self._project.path)
        ours: list[ChangedImage] = []
        theirs: list[ChangedImage] = []
        problems: dict[ChangedImage, QprdError] = {}
        for image in changed.images:
            try:
                if image.entry_id in self._stuck:
                    raise QprdError(
                        "A later command could not be taken back on this image.",
                        fix="Mend what is said of the later command, then run qprd undo again.",
                    )
                changed.earlier(image)
                (ours if image.is_ours(self._digest_of) else theirs).append(image)
            except QprdError as error:
                problems[image] = error
        files = list(self._restore(run, changed, ours))
        for image in theirs:
            try:
                files += self._restore_own(changed, image)
            except QprdError as error:
                problems[image] = error
        self._stuck |= {image.entry_id for image in problems}
        if not self._session.dry_run:
            _forget(run, {image.entry_id for image in changed.images} - self._stuck)
        root = self._project.path.parent.resolve()
        new = {root / file.path for image in ours for file in image.files if file.before is None}
        return UndoneCommand(
            command=run.command,
            time=run.time,
            restored=tuple(image.image_name for image in ours),
            own_only=tuple(image.image_name for image in theirs if image not in problems),
            files=tuple(dict.fromkeys(files)),
            removed=tuple(file for file in dict.fromkeys(files) if file in new),
            problems=tuple(error.line_about(image.image_name) for image, error in problems.items()),
        )

    def _restore(
        self, run: Run, changed: ChangedProject, images: Sequence[ChangedImage]
    ) -> Sequence[Path]:
        """Make files what they were before."""
        if not images:
            return ()
        subject = Subject("", f"undo of {run.folder.name}")
        with self._session.transaction(subject) as transaction:
            stage_earlier(transaction, self._project.path, changed, images, self._digest_of)
            files = transaction.commit()
        if self._session.dry_run:
            for file in (*(file for image in images for file in image.files), *changed.shared):
                self._would_be[file.path] = file.before
        return files

    def _restore_own(self, changed: ChangedProject, image: ChangedImage) -> Sequence[Path]:
        """Make our objects what they were before."""
        for entry in self._project.entries():
            if entry.id == image.entry_id:
                return self._project.restore_own(entry, changed.earlier(image), image.imported)
        raise QprdError(
            "The project does not have this image any more.",
            fix="Nothing is left to do: what qprd wrote went with the image.",
        )

    def _digest_of(self, path: str) -> str | None:
        if path in self._would_be:
            return self._would_be[path]
        return sha256_of(self._project.path.parent / path)


def _forget(run: Run, done: set[str]) -> None:
    """Remove the backup of a command that was taken back; of one that was in part, record that."""
    left = [step for step in run.steps if not step.manifest.undone]
    taken_back = [step for step in left if step.manifest.subject.entry_id in done]
    if len(taken_back) == len(left):
        remove_folder(run.folder)
        return
    for step in taken_back:
        step.mark_undone()
