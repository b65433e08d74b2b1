"""The backend that needs no QuPath and no Java: project file as JSON, objects as GeoJSON files.

Annotations come from ``<project>/qprd/annotations/<entry id>.geojson``, written inside QuPath by
``groovy/export_annotations.groovy``, or from a folder of the user's. Predictions go to
``<project>/qprd/predictions/<entry id>.geojson``, which ``groovy/import_predictions.groovy`` brings
into QuPath.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from qprd.errors import QprdError
from qprd.files.backups import ImportedFrom, Subject
from qprd.files.jsonfile import read_json
from qprd.files.layout import ProjectLayout
from qprd.files.writing import WriteAccess, WriteSession
from qprd.predictions import Predictions
from qprd.qupath.entries import find_entries
from qprd.qupath.geojson import (
    annotations_of,
    objects_of,
    own_member_of,
    read_annotations,
    read_objects,
    read_root,
)
from qprd.qupath.imports import (
    ImportPlan,
    difference,
    earlier_import,
    plan_import,
    same_annotations,
    with_imported,
)
from qprd.qupath.locate import SlideLocator
from qprd.qupath.pathclasses import read_classes
from qprd.qupath.predictions_geojson import (
    at_qupath_precision,
    count_predictions,
    predictions_from_geojson,
    predictions_to_text,
)
from qprd.qupath.project import (
    Annotation,
    AnnotationImport,
    Entry,
    ImportReport,
    PathClass,
    WriteReport,
)
from qprd.qupath.qpproj import ProjectFile, RecordedEntry, read_project_file

_MAX_SMALL_JSON_BYTES = 16 * 2**20
_MAX_DIFFERENCE_PX = 0.01
_EXPORT_HINT = (
    "In QuPath: Automate > Script editor, open export_annotations.groovy ('qprd groovy DIR' puts it"
    " into DIR), Run > Run for project."
)


@dataclass(frozen=True)
class AnnotationSource:
    """Where an entry's annotations come from.

    Attributes:
        file: The GeoJSON file, None if there is none.
        in_qupath: How many annotations QuPath's data file holds, None if it is not known.
        is_outdated: QuPath saved the image after this file was exported, going by the files' times.
    """

    file: Path | None
    in_qupath: int | None
    is_outdated: bool = False

    @property
    def problem(self) -> str | None:
        """What the user should know, None if all is well."""
        if self.is_outdated:
            return f"exported before QuPath last saved this image: {_EXPORT_HINT}"
        if self.file is not None or self.in_qupath == 0:
            return None
        if self.in_qupath is None:
            return "no annotations exported"
        return f"{self.in_qupath} annotations in QuPath, none exported: {_EXPORT_HINT}"


class ExchangeProject:
    """A QuPath project read without QuPath; implements `qprd.qupath.project.Project`.

    Args:
        path: The ``.qpproj`` file. It is never written.
        slides: Folders to look for slides in, by file name.
        annotations: Folder with exported annotations, named by entry id or image name
            (``1.geojson``, ``colon_1.tif.geojson``, ``colon_1.geojson``), instead of the project's.

    Raises:
        QprdError: no QuPath project, or one of the folders is none.
    """

    def __init__(
        self, path: Path, *, slides: Sequence[Path] = (), annotations: Path | None = None
    ) -> None:
        self._file: ProjectFile = read_project_file(path)
        self._layout = ProjectLayout(self._file.path)
        self._locator = SlideLocator(self._file.path, self._file.uri, slides)
        if annotations is not None and not annotations.is_dir():
            raise QprdError(
                "There is no such folder of annotations.",
                where=str(annotations),
                fix="Give --annotations a folder of GeoJSON files that QuPath exported.",
            )
        self._given_annotations = annotations
        self._access = WriteAccess(self._file.path, self.backend)

    @property
    def backend(self) -> Literal["exchange"]:
        """``"exchange"``."""
        return "exchange"

    @property
    def writes_qupath_data(self) -> bool:
        """False."""
        return False

    @property
    def version(self) -> str:
        """The QuPath that wrote the project."""
        return self._file.version

    @property
    def path(self) -> Path:
        """Absolute path of the ``.qpproj`` file."""
        return self._file.path

    @cached_property
    def _entries(self) -> tuple[Entry, ...]:
        return find_entries(self._file, self._locator)

    def entries(self) -> Sequence[Entry]:
        """All entries, in project order.

        Raises:
            QprdError: the folders of slides hold too many files.
        """
        return self._entries

    def classes(self) -> Sequence[PathClass]:
        """The project's classes, then those that only its annotations have.

        Raises:
            QprdError: a file of classes or annotations is malformed.
        """
        found = {path_class.name: path_class for path_class in read_classes(self.path)}
        for entry in self.entries():
            file = self.annotation_source(entry).file
            for drawn in read_objects(file) if file else ():
                if drawn.object_type == "annotation" and drawn.path_class is not None:
                    found.setdefault(drawn.path_class.name, drawn.path_class)
        return tuple(found.values())

    def annotation_source(self, entry: Entry) -> AnnotationSource:
        """Which file has the annotations of an entry, and how many QuPath itself has.

        Raises:
            QprdError: several files could be meant, or one file could be that of several entries.
        """
        is_outdated = False
        if self._given_annotations is not None:
            file = self._annotations_by_name(entry, self._given_annotations)
        else:
            own = self._annotation_file(entry)
            file = own if own.is_file() else None
            saved = _modified_ns(self._data_file(entry))
            is_outdated = file is not None and _modified_ns(file) < saved
        return AnnotationSource(file, self._annotations_in_qupath(entry), is_outdated)

    def annotation_note(self, entry: Entry) -> str | None:
        """That QuPath holds annotations which nobody exported, or has saved since, if so.

        Raises:
            QprdError: the folder of annotations is ambiguous.
        """
        return self.annotation_source(entry).problem

    def _data_file(self, entry: Entry) -> Path:
        return self.path.parent / "data" / entry.id / "data.qpdata"

    def _annotations_by_name(self, entry: Entry, folder: Path) -> Path | None:
        """The file of an entry in a folder of the user's.

        Names from the project are only compared with those that the folder lists: they may hold
        slashes, and must not become paths.
        """
        try:
            listed = {path.name for path in folder.iterdir() if path.is_file()}
        except OSError as error:
            raise QprdError(
                f"This folder cannot be read: {error.strerror}.", where=str(folder)
            ) from error
        found = sorted(_annotation_names(self._own(entry)) & listed)
        if len(found) > 1:
            raise QprdError(
                f"Several files could hold the annotations of {entry.name}: {', '.join(found)}.",
                where=str(folder),
                fix="Leave only one of them there.",
            )
        if not found:
            return None
        claims = self._claims(found[0])
        if len(claims) > 1:
            by_name, by_id = f"{entry.name}.geojson", f"{entry.id}.geojson"
            raise QprdError(
                f"{found[0]} could hold the annotations of several images: "
                + ", ".join(f"{claim.name} (id {claim.id})" for claim in claims[:5]),
                where=str(folder),
                fix=f"Name it by the whole image name: {by_name}."
                if len(self._claims(by_name)) == 1
                else f"Name it by id: {by_id}.",
            )
        return folder / found[0]

    def _claims(self, file: str) -> list[RecordedEntry]:
        """The entries whose annotations a file of this name could hold."""
        return [other for other in self._file.entries if file in _names(other.id, other.name)]

    def _annotations_in_qupath(self, entry: Entry) -> int | None:
        """Number of annotations that QuPath counted when it last saved, None if it did not say."""
        path = self.path.parent / "data" / entry.id / "summary.json"
        try:
            root = read_json(path, what="a summary", limit_bytes=_MAX_SMALL_JSON_BYTES)
        except QprdError:
            return None
        hierarchy = root.get("hierarchy") if isinstance(root, dict) else None
        counts = hierarchy.get("objectTypeCounts") if isinstance(hierarchy, dict) else None
        if not isinstance(counts, dict):
            return None
        number = counts.get("Annotations", 0)
        return number if isinstance(number, int) and number >= 0 else None

    def annotations(self, entry: Entry) -> Sequence[Annotation]:
        """All exported annotations of an entry, ours included; none if nothing was exported.

        Raises:
            QprdError: the file is malformed, ambiguous, or was exported from another image.
        """
        file = self.annotation_source(entry).file
        if file is None:
            return ()
        root, where = read_root(file)
        if self._given_annotations is None:
            exported_from = own_member_of(root).get("entry")
            if exported_from is not None and exported_from != entry.id:
                raise QprdError(
                    f"These are the annotations of the image with id {exported_from}.",
                    where=where,
                    fix=_EXPORT_HINT,
                )
        return tuple(annotations_of(objects_of(root, where)))

    def import_annotations(self, entry: Entry, imported: AnnotationImport) -> ImportReport:
        """Add annotations to the entry's file of exported ones, completely or not at all.

        What was there stays in it as it was. The ids of what was added stand in the collection's
        ``qprd`` member, by which ``groovy/import_annotations.groovy`` brings them into QuPath.

        Raises:
            QprdError: QuPath has annotations that were not exported; a malformed file; a full disk,
                a read-only folder, or a difference when read again. The file is as it was.
        """
        if self._given_annotations is not None:
            raise QprdError(
                "Annotations are imported into the project, not into a folder of the user's.",
                where=str(self._given_annotations),
                fix="Leave out --annotations.",
            )
        origin = ImportedFrom(imported.source, imported.path_class.name)
        subject = Subject(entry.id, entry.name, origin)
        path = self._annotation_file(entry)
        with self._access.transaction(subject, "import-asap") as transaction:
            transaction.expect(path)
            source = self.annotation_source(entry)
            never_saved = source.in_qupath is None and not self._data_file(entry).exists()
            if source.problem is not None and not never_saved:
                # With ours alone the file would look like an export of all there is.
                raise QprdError(f"Nothing was imported; {source.problem}", where=entry.name)
            existing = self.annotations(entry)
            root = None if source.file is None else read_root(source.file)[0]
            plan = plan_import(entry.id, imported, existing)
            files: tuple[Path, ...] = ()
            if plan.added or plan.outdated:
                member = {"entry": entry.id, "image": entry.name}
                written = transaction.stage_text(path, with_imported(root, plan, member))
                _compare_import(plan, existing, written, path)
                files = transaction.commit()
        return ImportReport(
            entry_id=entry.id,
            added=len(plan.added),
            unchanged=plan.unchanged,
            edited=plan.edited,
            removed=len(plan.outdated),
            where=path,
            files=files,
        )

    def prediction_file(self, entry: Entry) -> Path:
        """Where the predictions of an entry are written."""
        return self._layout.predictions / f"{self._own(entry).id}.geojson"

    def write_predictions(self, entry: Entry, predictions: Predictions) -> WriteReport:
        """Replace the entry's file of predictions, completely or not at all.

        What was written is read back and compared before it takes the earlier file's place.

        Raises:
            QprdError: full disk, read-only folder, predictions that QuPath cannot store, or a
                difference; the earlier file is as it was.
        """
        path = self.prediction_file(entry)
        meant = at_qupath_precision(predictions)
        text = predictions_to_text(predictions)
        with self._access.transaction(Subject(entry.id, entry.name), "write-back") as transaction:
            transaction.expect(path)
            replaced = _count_earlier(path)
            written = transaction.stage_text(path, text)
            _compare(meant, predictions_from_geojson(written), path)
            files = transaction.commit()
        return WriteReport(
            entry_id=entry.id,
            image_name=entry.name,
            tiles=len(meant.tiles),
            contours=len(meant.contours),
            review=len(meant.review),
            replaced=replaced,
            where=path,
            files=files,
        )

    def read_predictions(self, entry: Entry) -> Predictions:
        """The predictions in the entry's file; empty if there is none.

        Raises:
            QprdError: the file is malformed.
        """
        path = self.prediction_file(entry)
        if not path.is_file():
            return Predictions(tiles=(), contours=())
        return predictions_from_geojson(path)

    @contextmanager
    def writing(self, command: str, *, dry_run: bool = False) -> Iterator[WriteSession]:
        """See `qprd.qupath.project.Project.writing`."""
        with self._access.session(command, dry_run=dry_run) as session:
            yield session

    def restore_own(
        self, entry: Entry, earlier: Mapping[str, Path | None], imported: ImportedFrom | None
    ) -> tuple[Path, ...]:
        """See `qprd.qupath.project.Project.restore_own`.

        Raises:
            QprdError: as `import_annotations`; always for predictions, which are whole files here.
        """
        file = self.prediction_file(entry) if imported is None else self._annotation_file(entry)
        name = file.relative_to(self.path.parent).as_posix()
        if name not in earlier:
            raise QprdError(
                "QuPath has saved this image since, and only a QuPath can take out what is qprd's.",
                where=entry.name,
                fix="Use --backend paquo.",
            )
        if imported is None:
            raise QprdError(
                "The file of predictions was changed by another program since; it stays.",
                where=str(file),
                fix="Delete it, or run qprd remove.",
            )
        copy = earlier[name]
        had = () if copy is None else read_annotations(copy)
        return self.import_annotations(entry, earlier_import(entry.id, imported, had)).files

    def _annotation_file(self, entry: Entry) -> Path:
        """The project's own file of an entry's annotations."""
        return self._layout.annotations / f"{self._own(entry).id}.geojson"

    def _own(self, entry: Entry) -> Entry:
        """The entry, if it is one of this project: its id becomes a file name."""
        if not any(recorded.id == entry.id for recorded in self._file.entries):
            raise QprdError(f"There is no image with id {entry.id!r}.", where=str(self.path))
        return entry

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> ExchangeProject:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _count_earlier(path: Path) -> int:
    """Objects in an earlier file of predictions; a damaged one is there to be replaced."""
    if not path.is_file():
        return 0
    try:
        return count_predictions(path)
    except QprdError:
        return 0


def _differ(what: str, path: Path) -> QprdError:
    return QprdError(f"What was written differs from what was meant: {what}.", where=str(path))


def _modified_ns(path: Path) -> int:
    """When a file was last changed, 0 if that is not to be known."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _annotation_names(entry: Entry) -> set[str]:
    return _names(entry.id, entry.name)


def _names(entry_id: str, name: str) -> set[str]:
    """File names that may hold the annotations of an image."""
    stem = name.rpartition(".")[0] or name
    return {f"{part}.geojson" for part in (entry_id, name, stem)}


def _compare_import(
    plan: ImportPlan, existing: Sequence[Annotation], written: Path, path: Path
) -> None:
    """Raise unless what was written holds what was there and what was to be added."""
    kept = [annotation for annotation in existing if annotation.id not in plan.outdated]
    stored = read_annotations(written)
    differs = difference(plan.added, stored[len(kept) :])
    if differs is None and not same_annotations(stored[: len(kept)], kept):
        differs = "annotations that were there before"
    if differs is not None:
        raise _differ(differs, path)


def _compare(meant: Predictions, stored: Predictions, path: Path) -> None:
    """Raise unless what is stored is what was meant: ids, places, measurements, metadata."""

    def differ(what: str) -> QprdError:
        return _differ(what, path)

    if [tile.id for tile in stored.tiles] != [tile.id for tile in meant.tiles]:
        raise differ("the tiles")
    if [region.id for region in stored.regions] != [region.id for region in meant.regions]:
        raise differ("the contours, or the regions to review")
    if (stored.contour_class, stored.contour_color) != (meant.contour_class, meant.contour_color):
        raise differ("the class of the contours")
    if dict(stored.metadata) != dict(meant.metadata):
        raise differ("the entry metadata")
    for tile, expected in zip(stored.tiles, meant.tiles, strict=True):
        places = zip(
            (tile.x, tile.y, tile.size_px), (expected.x, expected.y, expected.size_px), strict=True
        )
        if any(abs(a - b) > _MAX_DIFFERENCE_PX for a, b in places):
            raise differ(f"the place of tile {tile.id}")
        if dict(tile.measurements) != dict(expected.measurements):
            raise differ(f"the measurements of tile {tile.id}")
    for contour, wanted in zip(stored.regions, meant.regions, strict=True):
        if not contour.polygon.normalize().equals_exact(
            wanted.polygon.normalize(), _MAX_DIFFERENCE_PX
        ):
            raise differ(f"the outline of contour {contour.id}")
        if (contour.name, dict(contour.measurements)) != (wanted.name, dict(wanted.measurements)):
            raise differ(f"the measurements of contour {contour.id}")
