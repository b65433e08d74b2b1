"""The places of qprd's files inside a QuPath project."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from qprd.errors import QprdError
from qprd.files.atomic import (
    find_temporary,
    is_abandoned,
    remove_temporary,
    walk,
    write_errors,
)


class ProjectLayout:
    """The folder ``<project>/qprd`` and what is in it."""

    def __init__(self, project: Path) -> None:
        self.project = project
        #: All that qprd writes, but for its objects inside QuPath's own data files.
        self.root = project.parent / "qprd"
        #: Trained models, one folder each.
        self.bundles = self.root / "bundles"
        #: Trainings that are under way or were stopped, one folder each.
        self.runs = self.root / "runs"
        #: Predictions as plain files, one folder an entry, and ``index.html``.
        self.results = self.root / "results"
        #: Which process is at work on which slide; there only during predictions.
        self.claims = self.root / "claims"
        #: What ``export_annotations.groovy`` writes for the exchange backend.
        self.annotations = self.root / "annotations"
        #: What ``import_predictions.groovy`` reads.
        self.predictions = self.root / "predictions"
        #: Judgments made in the browser, a file an entry; lines are only ever appended.
        self.reviews = self.root / "reviews"
        #: What ``qprd export`` writes for other programs.
        self.exports = self.root / "exports"
        #: What files were before qprd changed them, one folder a command.
        self.backups = self.root / "backups"
        #: There only while files are replaced, or if that was broken off.
        self.journal = self.root / "journal.json"
        #: Locked while a command writes to the project; the file itself stays.
        self.lock = self.root / "lock"

    def inside(self, path: Path) -> Path:
        """A path without links, by way of the project; its folder ``qprd`` alone may be a link.

        Raises:
            QprdError: it leads out of the project, or nowhere.
        """
        return resolve_inside(path, self.project.parent, link=self.root)

    def refuse_links(self) -> None:
        """Make sure that no link leads out of the project, but for its folder ``qprd`` itself.

        That may be on another disk. Any other link of a stranger's project may lead to what is not
        to be read or replaced.

        Raises:
            QprdError: one does; or ``qprd`` leads nowhere, or to where the project is.
        """
        folder = self.project.parent
        if self.root.is_symlink() and not self.root.is_dir():
            raise QprdError(
                "The folder qprd is a link that leads to no folder.",
                where=str(self.root),
                fix="Make the folder that it leads to, or remove the link.",
            )
        if self.root.is_symlink() and folder.resolve().is_relative_to(self.root.resolve()):
            raise QprdError(
                "The folder qprd is a link to a folder that holds the project.",
                where=str(self.root),
                fix="Let it lead to an empty folder of its own.",
            )
        for place, depth in self._places():
            if place.is_symlink():
                self.inside(place)
            for entry in walk(place, depth=depth):
                if entry.is_symlink():
                    self.inside(Path(entry.path))

    def require_writable(self) -> None:
        """Make the folder, and find out before long work that nothing can be written there.

        What killed commands have left behind is removed.

        Raises:
            QprdError: it cannot be made or written, or holds links out of the project.
        """
        self.refuse_links()
        with write_errors("The project's folder", self.root):
            self.root.mkdir(exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        self.remove_leftovers()

    def earlier(self, entry_id: str) -> Path:
        """What is kept of the last result of another bundle, of one entry."""
        return self.root / "earlier" / entry_id

    def result(self, entry_id: str) -> Path:
        """Folder of one entry's results."""
        return self.results / entry_id

    def leftovers(self, *, locked: bool = False) -> list[Path]:
        """Temporary files and folders of commands that were killed.

        With ``locked``, the caller holds the project's lock: nobody else can then be writing what
        only the holder of the lock writes.
        """
        if self.journal.exists():
            # It may name some of them.
            return []
        root = self.root.resolve()
        places = ((self.project.parent.resolve(), 0), *self._places())
        found = [
            *(path for place, depth in places for path in find_temporary(place, depth=depth)),
            # As earlier versions named them.
            *root.glob(f"cache-{'[a-z0-9_]' * 8}"),
            *root.glob(f"results/.*.{'[0-9a-f]' * 8}.partial"),
        ]
        return [path for path in found if is_abandoned(path) or (locked and self._is_locked(path))]

    def remove_leftovers(self, *, locked: bool = False) -> None:
        """Remove `leftovers`."""
        for path in self.leftovers(locked=locked):
            remove_temporary(path)

    def _places(self) -> tuple[tuple[Path, int], ...]:
        """Folders that qprd writes in, and how deep."""
        folder = self.project.parent
        return (folder / "data", 1), (folder / "classifiers", 0), (self.root.resolve(), 3)

    def _is_locked(self, path: Path) -> bool:
        """Whether only the holder of the lock writes temporary files at this place."""
        root = self.root.resolve()
        if not path.is_relative_to(root):
            return True
        own = self.root / path.relative_to(root).parts[0]
        if own in (self.annotations, self.predictions, self.backups):
            return True
        return path.name.startswith(f".{self.journal.name}.")


def resolve_inside(path: Path, folder: Path, *, link: Path | None = None) -> Path:
    """A path without links, if it lies in this folder: a stranger's project may hold links.

    ``link``, directly in the folder, may be a link to elsewhere; what lies in it keeps its path by
    way of it.

    Raises:
        QprdError: it leads out of the folder, or nowhere.
    """
    try:
        resolved, root = path.resolve(), folder.resolve()
        if link is not None and link.is_symlink() and resolved.is_relative_to(link.resolve()):
            return root / link.name / resolved.relative_to(link.resolve())
        is_inside = resolved.is_relative_to(root)
    except (OSError, RuntimeError, ValueError) as error:
        # A link to itself is a RuntimeError up to Python 3.12; a NUL in a name is a ValueError.
        raise QprdError(
            f"This file cannot be found: {error}.",
            where=str(path),
            fix="Put the file itself there instead of the link.",
        ) from error
    if not is_inside:
        raise QprdError(
            "This is a link to a place outside the project; nothing was written.",
            where=str(path),
            fix="Put what it leads to in its place. Only the folder qprd itself may be a link, to "
            "another disk.",
        )
    return resolved


def find_project(given: Path | None) -> Path:
    """The project file: as given, or the single ``*.qpproj`` of the given or current folder.

    Raises:
        QprdError: there is none, or more than one.
    """
    place = given if given is not None else Path()
    if place.is_file():
        if place.suffix != ".qpproj":
            raise QprdError(
                "This is not a QuPath project file.",
                where=str(place),
                fix="Give the project.qpproj, or the folder that holds it.",
            )
        return place.resolve()
    if not place.is_dir():
        raise QprdError(
            "There is no such project.",
            where=str(place),
            fix="Give the project.qpproj, or the folder that holds it.",
        )
    # macOS keeps "._project.qpproj" beside a file on a foreign disk.
    found = sorted(path for path in place.glob("*.qpproj") if not path.name.startswith("."))
    if len(found) == 1:
        return found[0].resolve()
    if not found:
        raise QprdError(
            "There is no QuPath project in this folder.",
            where=str(place.resolve()),
            fix="Name it (qprd ... path/to/project.qpproj), or go to its folder first.",
        )
    raise QprdError(
        f"There are {len(found)} QuPath projects in this folder: "
        + ", ".join(path.name for path in found),
        where=str(place.resolve()),
        fix="Name the one you mean.",
    )
