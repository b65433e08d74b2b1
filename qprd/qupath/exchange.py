"""The backend that needs no QuPath and no Java: project file as JSON, objects as GeoJSON files.

Annotations come from ``<project>/qprd/annotations/<entry id>.geojson``, written inside QuPath by
``groovy/export_annotations.groovy``, or from a folder of the user's. Predictions go to
``<project>/qprd/predictions/<entry id>.geojson``, which ``groovy/import_predictions.groovy`` brings
into QuPath.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from qprd.errors import QprdError
from qprd.files.backups import ImportedFrom, Subject
from qprd.files.layout import ProjectLayout
from qprd.predictions import Predictions
from qprd.qupath.annotation_files import EXPORT_HINT, AnnotationFiles, AnnotationSource
from qprd.qupath.comparison import TileTable, compare, stored_otherwise
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.geojson import read_annotations, read_objects, read_root
from qprd.qupath.image_record import image_record
from qprd.qupath.imports import (
    ImportPlan,
    difference,
    earlier_import,
    plan_import,
    same_annotations,
    with_imported,
)
from qprd.qupath.pathclasses import read_classes
from qprd.qupath.predictions_geojson import (
    metadata_of,
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
from qprd.qupath.project_on_disk import ProjectOnDisk
from qprd.qupath.storable import storable


class ExchangeProject(ProjectOnDisk):
    """A QuPath project read without QuPath.

    Args:
        path: The ``.qpproj`` file. It is never written.
        slides: Folders to look for slides in, by file name.
        annotations: Folder with exported annotations, named by entry id or image name
            (``1.geojson``, ``colon_1.tif.geojson``, ``colon_1.geojson``), instead of the project's.
    """

    backend = "exchange"
    writes_qupath_data = False

    def __init__(
        self, path: Path, *, slides: Sequence[Path] = (), annotations: Path | None = None
    ) -> None:
        super().__init__(path, slides=slides)
        self._opened_with = {"slides": slides, "annotations": annotations}
        self._annotation_files = AnnotationFiles(self._file, annotations)

    @override
    def classes(self) -> Sequence[PathClass]:
        found = {path_class.name: path_class for path_class in read_classes(self.path)}
        for entry in self.entries():
            # An image whose annotations cannot be read adds none.
            with contextlib.suppress(QprdError):
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
        return self._annotation_files.source(self._own(entry))

    @override
    def annotation_note(self, entry: Entry) -> str | None:
        return self.annotation_source(entry).note

    @override
    def annotations_in_qupath(self, entry: Entry) -> Sequence[Annotation]:
        return self._annotation_files.read(self._own(entry))[1]

    @override
    def import_annotations(self, entry: Entry, imported: AnnotationImport) -> ImportReport:
        if self._annotation_files.given is not None:
            raise QprdError(
                "Annotations are imported into the project, not into a folder of the user's.",
                where=str(self._annotation_files.given),
                fix="Leave out --annotations.",
            )
        origin = ImportedFrom(imported.source, imported.path_class.name)
        subject = Subject(entry.id, entry.name, origin)
        path = self._annotation_files.own_file(self._own(entry))
        with self._access.transaction(subject, "import-asap") as transaction:
            transaction.expect(path)
            source = self._annotation_files.source(entry)
            data = EntryFolder.of(self.path, entry.id).data
            never_saved = source.in_qupath is None and not data.exists()
            if source.problem is not None and not never_saved:
                # With ours alone the file would look like an export of all there is.
                raise QprdError(
                    f"Nothing was imported: {source.problem}.", where=entry.name, fix=EXPORT_HINT
                )
            root, existing = self._annotation_files.read(entry)
            plan = plan_import(entry.id, imported, existing)
            files: tuple[Path, ...] = ()
            if plan.added or plan.outdated:
                text = with_imported(root, plan, image_record(entry))
                written = transaction.stage_text(path, text)
                _compare_import(plan, existing, written, path)
                files = transaction.commit()
        return plan.report(entry.id, path, files)

    def _own(self, entry: Entry) -> Entry:
        """The entry, if it is one of this project: its id becomes a name of files."""
        self._recorded(entry)
        return entry

    def prediction_file(self, entry: Entry) -> Path:
        """Where the predictions of an entry are written."""
        return ProjectLayout(self.path).predictions / f"{self._own(entry).id}.geojson"

    @override
    def write_predictions(self, entry: Entry, predictions: Predictions) -> WriteReport:
        path = self.prediction_file(entry)
        meant = storable(predictions)
        has_any = meant.tiles or meant.annotations
        text = predictions_to_text(meant, image_record(entry) if has_any else {})
        with self._access.transaction(Subject(entry.id, entry.name), "write-back") as transaction:
            transaction.expect(path)
            replaced = _count_earlier(path)
            stored = predictions_from_geojson(transaction.stage_text(path, text))
            compare(meant, stored, TileTable.of(stored.tiles), path)
            if (stored.contour_color, stored.metadata) != (meant.contour_color, meant.metadata):
                raise stored_otherwise("the entry metadata, or the color of the contours", path)
            files = transaction.commit()
        return WriteReport.of(entry, meant, replaced, path, files)

    @override
    def stored_metadata(self, entry: Entry) -> Mapping[str, str]:
        path = self.prediction_file(entry)
        return metadata_of(read_root(path)[0]) if path.is_file() else {}

    @override
    def read_predictions(self, entry: Entry) -> Predictions:
        path = self.prediction_file(entry)
        if not path.is_file():
            return Predictions(tiles=(), contours=())
        return predictions_from_geojson(path)

    @override
    def restore_own(
        self, entry: Entry, earlier: Mapping[str, Path | None], imported: ImportedFrom | None
    ) -> tuple[Path, ...]:
        file = (
            self.prediction_file(entry)
            if imported is None
            else self._annotation_files.own_file(self._own(entry))
        )
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


def _count_earlier(path: Path) -> int:
    """Objects in an earlier file of predictions; 0 if there is none, or a damaged one."""
    features: object = None
    with contextlib.suppress(QprdError):
        root, _ = read_root(path)
        features = root.get("features") if isinstance(root, dict) else None
    return len(features) if isinstance(features, list) else 0


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
        raise stored_otherwise(differs, path)
