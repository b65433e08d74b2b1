"""``qprd undo``: take back what a command wrote into a project, and nothing that came after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.backups import UNDO, Run, Subject, undoable
from qprd.files.filestate import sha256_of
from qprd.files.layout import ProjectLayout
from qprd.files.session import WriteSession
from qprd.jobs.changes import NOTHING_TOUCHED, RELOAD, ProjectChange, change_of, changed_files
from qprd.names import counted
from qprd.progress import Progress, progress_bars
from qprd.qupath.project import Project
from qprd.qupath.undo import CommandChanges


@dataclass(frozen=True)
class UndoneCommand:
    """What became of one command.

    Attributes:
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


@dataclass(frozen=True, kw_only=True)
class UndoSummary(ProjectChange):
    """What an undo did.

    Attributes:
        commands: What was taken back, the newest first.
        left: Number of commands that can still be taken back.
    """

    commands: tuple[UndoneCommand, ...]
    left: int

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
                "What a script brought into QuPath is still there: import_predictions.groovy makes "
                "it what it was before, and remove_qprd_objects.groovy takes it out of images that "
                "had no results."
            )
        return lines

    def _lines_of(self, command: UndoneCommand) -> list[str]:
        took, went = ("Would take", "would go") if self.dry_run else ("Took", "went")
        count = len(command.restored) + len(command.own_only)
        lines = [f"{took} back {command.command} of {command.time} on {counted(count, 'image')}."]
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


def undo(
    project: Project,
    *,
    everything: bool = False,
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> UndoSummary:
    """Take back the last write-back, removal or import: files become what they were.

    Files that nobody has changed since become so byte for byte, all together or none. An image that
    a person has worked on since keeps that work: our objects alone become those of before, or where
    that cannot be, it stays as it is and is reported.

    Args:
        project: The project.
        everything: Take back every command whose backup is kept.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there is nothing to take back, or another command is writing.

    Examples:
        >>> written = qprd.write_back(project, images="demo_4.tif")
        >>> undone = qprd.undo(project)
        >>> [command.command for command in undone.commands]
        ['write-back']
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
        with progress_bars(progress).task("taking back", len(chosen)) as task:
            for run in chosen:
                commands.append(undoing.take_back(run))
                task.advance()
        left = len(undoable(project.path)) if not dry_run else len(runs) - len(chosen)
    return UndoSummary(
        **change_of(project, session, dry_run),
        problems=tuple(problem for command in commands for problem in command.problems),
        commands=tuple(commands),
        left=left,
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
        changes = CommandChanges(run, self._project.path, self._digest_of)
        ours: list[str] = []
        theirs: list[str] = []
        problems: dict[str, QprdError] = {}
        for entry_id in changes.images:
            try:
                if entry_id in self._stuck:
                    raise QprdError(
                        "A later command could not be taken back on this image.",
                        fix="Mend what is reported of the later command, then run qprd undo again.",
                    )
                changes.earlier(entry_id)
                (ours if changes.is_ours(entry_id) else theirs).append(entry_id)
            except QprdError as error:
                problems[entry_id] = error
        files = list(self._restore(run, changes, ours))
        for entry_id in theirs:
            try:
                files += self._restore_own(changes, entry_id)
            except QprdError as error:
                problems[entry_id] = error
        self._stuck |= problems.keys()
        if not self._session.dry_run:
            run.mark_undone(changes.images.keys() - self._stuck)
        root = self._project.path.parent.resolve()
        new = {
            root / file.path for image in ours for file in changes.files(image) if not file.before
        }
        names = {entry_id: image.image_name for entry_id, image in changes.images.items()}
        return UndoneCommand(
            command=run.command,
            time=run.time,
            restored=tuple(names[image] for image in ours),
            own_only=tuple(names[image] for image in theirs if image not in problems),
            files=tuple(dict.fromkeys(files)),
            removed=tuple(file for file in dict.fromkeys(files) if file in new),
            problems=tuple(error.line_about(names[image]) for image, error in problems.items()),
        )

    def _restore(self, run: Run, changes: CommandChanges, images: Sequence[str]) -> Sequence[Path]:
        """Make the files of these images what they were before."""
        if not images:
            return ()
        with self._session.transaction(Subject("", f"undo of {run.folder.name}")) as transaction:
            changes.stage_earlier(transaction, images)
            files = transaction.commit()
        if self._session.dry_run:
            own = (file for image in images for file in changes.files(image))
            self._would_be |= {file.path: file.before for file in (*own, *changes.shared)}
        return files

    def _restore_own(self, changes: CommandChanges, image: str) -> Sequence[Path]:
        """Make our objects of this image what they were before."""
        for entry in self._project.entries():
            if entry.id == image:
                imported = changes.images[image].imported
                return self._project.restore_own(entry, changes.earlier(image), imported)
        raise QprdError(
            "The project does not have this image any more.",
            fix="Nothing is left to do: what qprd wrote went with the image.",
        )

    def _digest_of(self, path: str) -> str | None:
        if path in self._would_be:
            return self._would_be[path]
        return sha256_of(self._project.path.parent / path)
