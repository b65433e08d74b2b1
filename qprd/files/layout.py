"""The places of qprd's files inside a QuPath project."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from qprd.errors import QprdError
from qprd.files.atomic import find_temporary, is_abandoned, remove_temporary, write_errors


@dataclass(frozen=True)
class ProjectLayout:
    """The folder ``<project>/qprd`` and what is in it."""

    project: Path

    @property
    def root(self) -> Path:
        """All that qprd writes, but for its objects inside QuPath's own data files."""
        return self.project.parent / "qprd"

    @property
    def bundles(self) -> Path:
        """Trained models, one folder each."""
        return self.root / "bundles"

    @property
    def runs(self) -> Path:
        """Trainings that are under way or were stopped, one folder each."""
        return self.root / "runs"

    @property
    def results(self) -> Path:
        """Predictions as plain files, one folder an entry, and ``index.html``."""
        return self.root / "results"

    def earlier(self, entry_id: str) -> Path:
        """What is kept of the last result of another bundle, of one entry."""
        return self.root / "earlier" / entry_id

    @property
    def claims(self) -> Path:
        """Which process is at work on which slide; there only during predictions."""
        return self.root / "claims"

    @property
    def annotations(self) -> Path:
        """What ``export_annotations.groovy`` writes for the exchange backend."""
        return self.root / "annotations"

    @property
    def predictions(self) -> Path:
        """What ``import_predictions.groovy`` reads."""
        return self.root / "predictions"

    @property
    def reviews(self) -> Path:
        """Judgments made in the browser, a file an entry; lines are only ever appended."""
        return self.root / "reviews"

    @property
    def exports(self) -> Path:
        """What ``qprd export`` writes for other programs."""
        return self.root / "exports"

    @property
    def backups(self) -> Path:
        """What files were before qprd changed them, one folder a command."""
        return self.root / "backups"

    @property
    def journal(self) -> Path:
        """There only while files are replaced, or if that was broken off."""
        return self.root / "journal.json"

    @property
    def lock(self) -> Path:
        """Locked while a command writes to the project; the file itself stays."""
        return self.root / "lock"

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
        for place, depth in (("data", 1), ("classifiers", 0)):
            for link in find_links(folder / place, depth=depth):
                self.inside(link)
        for link in find_links(self.root.resolve(), depth=3):
            self.inside(link)

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

    def result(self, entry_id: str) -> Path:
        """Folder of one entry's results."""
        return self.results / entry_id

    def leftovers(self, *, locked: bool = False) -> list[Path]:
        """Temporary files and folders of commands that were killed.

        Args:
            locked: Whether the caller holds the project's lock: nobody else can then be writing
                what only the holder of the lock writes.
        """
        if self.journal.exists():
            # It may name some of them.
            return []
        folder, root = self.project.parent, self.root.resolve()
        found = [
            *find_temporary(folder.resolve(), depth=0),
            *find_temporary(folder / "data", depth=1),
            *find_temporary(folder / "classifiers", depth=0),
            *find_temporary(root, depth=3),
            # As earlier versions named them.
            *root.glob(f"cache-{'[a-z0-9_]' * 8}"),
            *root.glob(f"results/.*.{'[0-9a-f]' * 8}.partial"),
        ]
        return [path for path in found if is_abandoned(path) or (locked and self._is_locked(path))]

    def remove_leftovers(self, *, locked: bool = False) -> None:
        """Remove `leftovers`."""
        for path in self.leftovers(locked=locked):
            remove_temporary(path)

    def _is_locked(self, path: Path) -> bool:
        """Whether only the holder of the lock writes temporary files at this place."""
        root = self.root.resolve()
        if not path.is_relative_to(root):
            return True
        own = self.root / path.relative_to(root).parts[0]
        if own in (self.annotations, self.predictions, self.backups):
            return True
        return path.name.startswith(f".{self.journal.name}.")


def find_links(place: Path, *, depth: int) -> Iterator[Path]:
    """Find symbolic links: the place itself, or in it and its subfolders.

    Args:
        place: Where to look; links to folders are not followed.
        depth: How many levels of subfolders are searched; 0 searches the folder alone.
    """
    if place.is_symlink():
        yield place
        return
    with contextlib.suppress(OSError), os.scandir(place) as listed:
        for entry in listed:
            if entry.is_symlink() or (depth > 0 and entry.is_dir()):
                yield from find_links(Path(entry.path), depth=depth - 1)


def resolve_inside(path: Path, folder: Path, *, link: Path | None = None) -> Path:
    """A path without links, if it lies in this folder: a stranger's project may hold links.

    Args:
        path: The path.
        folder: The folder.
        link: What may be a link to elsewhere, directly in the folder; what lies in it keeps its
            path by way of it.

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
