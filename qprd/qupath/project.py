"""The interface of a project that both QuPath backends implement, and its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from shapely.geometry.base import BaseGeometry
from typing_extensions import Self

from qprd.files.backups import ImportedFrom
from qprd.files.session import WriteSession
from qprd.predictions import Predictions
from qprd.slides.frame import Rotation

#: RGB of classes without a color, such as QuPath's own Tumor.
DEFAULT_COLOR = (200, 0, 0)


@dataclass(frozen=True)
class PathClass:
    """A QuPath classification. ``Tumor: sub`` is derived from ``Tumor``."""

    name: str
    color: tuple[int, int, int] | None = None


#: The z and t of the pixels that are scored: the first of each.
SCORED_PLANE = (0, 0)


@dataclass(frozen=True)
class Annotation:
    """One annotation as QuPath holds it.

    Attributes:
        id: QuPath's UUID, or a stand-in such as ``feature 3`` where a file has none.
        geometry: As drawn, level-0 pixels of the entry's frame, coordinates rounded to 0.01 px;
            possibly invalid, a point or a line: `qprd.sampling.regions` sorts that out.
        predicted: Made by qprd, whatever its class is now: it has our measurement, or, as QuPath
            drops these when an outline is changed, a name that we give.
        plane: z and t of the plane it is drawn on.
        fault: Why its outline cannot be used; the geometry is then the points of it that are
            known, or empty. None if it can be read.
    """

    id: str
    geometry: BaseGeometry
    class_name: str | None
    name: str | None = None
    locked: bool = False
    predicted: bool = False
    plane: tuple[int, int] = SCORED_PLANE
    fault: str | None = None


@dataclass(frozen=True)
class SlideSource:
    """Where an entry's pixels come from and how its frame relates to the file's.

    Attributes:
        path: The file, found; None if it is missing.
        reader: QuPath's reader, such as ``Openslide`` or ``ImageJ``; empty if the project does not
            say.
        use_bounds: Whether that reader crops the file to its ``openslide.bounds-*``; only
            OpenSlide's does.
        file_size: Width and height that this reader shows, before any crop and rotation of the
            entry; None if the project does not say.
        width: Width of the entry's frame in level-0 pixels; None if the project does not say.
        height: Height of the entry's frame in level-0 pixels; None if the project does not say.
        mpp: Micrometers per pixel from the project (mean of x and y), None if uncalibrated.
        rotation: Clockwise rotation that QuPath applies to the file's image.
        crop: x, y, width, height of a crop in the *unrotated* file frame (after QuPath's own
            crop to the OpenSlide bounds); None if there is none.
        unsupported: Why these pixels cannot be used (multi-channel, multi-series, ...), or None.
    """

    uri: str
    path: Path | None
    reader: str = ""
    use_bounds: bool = True
    file_size: tuple[int, int] | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    rotation: Rotation = 0
    crop: tuple[int, int, int, int] | None = None
    unsupported: str | None = None


@dataclass(frozen=True)
class Entry:
    """A slide's place in a project."""

    id: str
    name: str
    source: SlideSource
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WriteReport:
    """What a write-back did to one entry.

    Attributes:
        replaced: Objects of ours that are gone for them.
        where: The file that holds them.
        files: All files that changed, or would change in a dry run.
    """

    entry_id: str
    image_name: str
    tiles: int
    contours: int
    replaced: int
    where: Path
    files: tuple[Path, ...] = ()
    review: int = 0

    @classmethod
    def of(
        cls, entry: Entry, stored: Predictions, replaced: int, where: Path, files: tuple[Path, ...]
    ) -> WriteReport:
        """The report of storing these predictions."""
        return cls(
            entry_id=entry.id,
            image_name=entry.name,
            tiles=len(stored.tiles),
            contours=len(stored.contours),
            review=len(stored.review),
            replaced=replaced,
            where=where,
            files=files,
        )


@dataclass(frozen=True)
class AnnotationImport:
    """Areas drawn in another program, to become annotations of one entry.

    Attributes:
        source: What they come from, such as a file's name. Importing from it again replaces what
            it gave before.
        path_class: The class they get; its color counts where there is no such class yet.
        areas: Name and geometry of each: a valid polygon or multipolygon in level-0 pixels of the
            entry's frame.
    """

    source: str
    path_class: PathClass
    areas: tuple[tuple[str, BaseGeometry], ...]


@dataclass(frozen=True)
class ImportReport:
    """What an import did to one entry.

    Attributes:
        unchanged: Annotations that an earlier import had put there.
        edited: Annotations of an earlier import that a person changed, left as they are.
        removed: Annotations of an earlier import that the source does not have any more.
        where: The file that holds them.
        files: All files that changed, or would change in a dry run.
    """

    entry_id: str
    added: int
    unchanged: int
    edited: int
    removed: int
    where: Path
    files: tuple[Path, ...] = ()


class Project(ABC):
    """A QuPath project, whichever backend reads it.

    As a context manager it is closed at the end of the block; after an exception nothing is saved.
    """

    #: Its name, for reports; what it can do is said by `writes_qupath_data`.
    backend: ClassVar[str]
    #: Whether what is written is in QuPath's own data at once. Otherwise it is in files, which
    #: scripts bring into QuPath and take out of it.
    writes_qupath_data: ClassVar[bool]
    #: The QuPath that reads the project, or that wrote it if none is at hand.
    version: str
    #: Absolute path of the ``.qpproj`` file.
    path: Path

    @abstractmethod
    def entries(self) -> Sequence[Entry]:
        """All entries, in project order.

        Raises:
            QprdError: the folders of slides hold too many files.
        """

    @abstractmethod
    def classes(self) -> Sequence[PathClass]:
        """The project's classes, then those that only its annotations have.

        Raises:
            QprdError: the file of classes is malformed.
        """

    @abstractmethod
    def annotations(self, entry: Entry) -> Sequence[Annotation]:
        """All annotations of an entry, ours included (see `qprd.predictions.is_own_class`).

        One whose outline cannot be read is among them, with its fault. Regions that were judged
        outside QuPath have the class of their verdict (see `qprd.qupath.reviews`).

        Raises:
            QprdError: they cannot be read completely.
        """

    @abstractmethod
    def annotations_in_qupath(self, entry: Entry) -> Sequence[Annotation]:
        """As `annotations`, without what was judged outside QuPath.

        Raises:
            QprdError: they cannot be read completely.
        """

    @abstractmethod
    def annotation_note(self, entry: Entry) -> str | None:
        """Why an entry may have more annotations than `annotations` gives, or None.

        Raises:
            QprdError: there is no telling where its annotations are.
        """

    @abstractmethod
    def recorded_classes(self, entry: Entry) -> Sequence[str] | None:
        """The classes of the annotations that QuPath last saved; None if that is not known.

        What QuPath keeps beside its data is read, which may be there when the data cannot be read.
        """

    @abstractmethod
    def writing(
        self,
        command: str,
        entries: Sequence[Entry] = (),
        *,
        dry_run: bool = False,
        wait: bool = False,
        will_continue: bool = False,
    ) -> AbstractContextManager[WriteSession]:
        """Keep all that is written inside together: one backup, and no other writer meanwhile.

        What a command that was killed had left half done is finished or taken back first. A single
        write outside of this is a session of its own.

        Args:
            command: Which command writes.
            entries: Which entries it is about. The same command, broken off on some of these just
                before, counts as a part of this one: they share a backup, and one undo.
            dry_run: Whatever is written inside changes nothing, and only reports.
            wait: Wait for another command that is writing.
            will_continue: It will write again, and all of it is one command to `qprd undo`.

        Raises:
            QprdError: another command is writing and is not waited for, or the project's folder
                cannot be written.
        """

    @abstractmethod
    def write_predictions(self, entry: Entry, predictions: Predictions) -> WriteReport:
        """Replace our objects of this entry by these; touch nothing else; read back and compare.

        Raises:
            QprdError: the predictions cannot be stored, what is there cannot be read or was changed
                meanwhile, what was read back differs from what was meant, or files cannot be
                written. In each case all files are as they were.
        """

    @abstractmethod
    def stored_metadata(self, entry: Entry) -> Mapping[str, str]:
        """Our metadata of this entry as they are stored now: which results were written, and when.

        Raises:
            QprdError: they cannot be read.
        """

    @abstractmethod
    def read_predictions(self, entry: Entry) -> Predictions:
        """Our objects of this entry as they are stored now (empty if there are none).

        Raises:
            QprdError: they cannot be read.
        """

    @abstractmethod
    def import_annotations(self, entry: Entry, imported: AnnotationImport) -> ImportReport:
        """Add annotations to an entry; touch nothing else; read back and compare.

        Of an earlier import from the same source, annotations that no person has changed are
        replaced (see `qprd.qupath.imports`).

        Raises:
            QprdError: as `write_predictions`.
        """

    @abstractmethod
    def restore_own(
        self, entry: Entry, earlier: Mapping[str, Path | None], imported: ImportedFrom | None
    ) -> tuple[Path, ...]:
        """Make our objects and metadata what earlier files had; touch nothing else.

        Args:
            entry: The entry, which a person has changed since.
            earlier: By path inside the project, the file as it was, None if there was none.
            imported: Restores what had been imported from this source instead.

        Returns:
            All files that changed, or would change in a dry run.

        Raises:
            QprdError: nothing was changed, or this backend cannot tell our objects from others.
        """

    def close(self) -> None:  # noqa: B027
        """Release the project without saving."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
