"""Where qprd keeps its files inside a QuPath project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from qprd.errors import QprdError


@dataclass(frozen=True)
class ProjectLayout:
    """The folder ``<project>/qprd`` and what is in it.

    Attributes:
        project: The ``.qpproj`` file.
    """

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
    def results(self) -> Path:
        """Predictions as plain files, one folder an entry, and ``index.html``."""
        return self.root / "results"

    @property
    def annotations(self) -> Path:
        """What ``export_annotations.groovy`` writes for the exchange backend."""
        return self.root / "annotations"

    @property
    def predictions(self) -> Path:
        """What ``import_predictions.groovy`` reads."""
        return self.root / "predictions"

    def require_writable(self) -> None:
        """Make the folder, and find out before long work that nothing can be written there.

        Raises:
            QprdError: it cannot be made or written.
        """
        try:
            self.root.mkdir(exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise QprdError(
                f"The project's folder cannot be written: {error.strerror}.",
                where=str(self.root),
                fix="Make it writable, or copy the project to a place that is.",
            ) from error

    def result(self, entry_id: str) -> Path:
        """Folder of one entry's results."""
        return self.results / entry_id


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
    found = sorted(place.glob("*.qpproj"))
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
