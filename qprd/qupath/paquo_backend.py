"""The backend that uses a real QuPath, found and started by paquo.

Objects are read and written by QuPath, one entry at a time, while the slides may be anywhere: their
pixels are not needed. Each write is prepared in new files, read back by QuPath and compared, and
only then put in place of the old files. QuPath keeps no lock: if it has the same image open, it
must be reopened there (File > Reload data), or its next save undoes ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from qprd.errors import QprdError
from qprd.files.backups import ImportedFrom, Subject
from qprd.files.filestate import FileState
from qprd.names import counted
from qprd.predictions import (
    REVIEW_CLASS,
    REVIEW_COLOR,
    Predictions,
    is_own_class,
    own_metadata,
)
from qprd.qupath.annotation_files import AnnotationFiles
from qprd.qupath.comparison import compare, refuse_changes, stored_otherwise
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.entrydata import EntryData
from qprd.qupath.geojson import intact_features, read_annotations
from qprd.qupath.imports import ImportPlan, difference, earlier_import, plan_import
from qprd.qupath.java import qupath_call, start_qupath
from qprd.qupath.pathclasses import argb_from_color, classes_path, read_classes, with_classes
from qprd.qupath.project import (
    Annotation,
    AnnotationImport,
    Entry,
    ImportReport,
    PathClass,
    WriteReport,
)
from qprd.qupath.project_on_disk import ProjectOnDisk
from qprd.qupath.projectedit import recorded_metadata, server_builder, stage_own_metadata
from qprd.qupath.storable import storable


@dataclass(frozen=True)
class _Change:
    """What was done to an entry's objects in memory, and how to make sure that it was stored.

    Attributes:
        verify: Raises unless the data that QuPath read back, of the file named, are as meant.
        metadata: The entry metadata of ours that it shall have; None leaves those that it has.
        removal: Whether all that is ours goes, and our classes with it if no image bears them.
    """

    verify: Callable[[EntryData, Path], None]
    metadata: Mapping[str, str] | None = None
    path_classes: tuple[PathClass, ...] = ()
    removal: bool = False


class PaquoProject(ProjectOnDisk):
    """A QuPath project read and written by QuPath.

    An image that QuPath has never saved, as in a project made without QuPath, has the annotations
    of its file in ``qprd/annotations``. The first write brings them into QuPath.
    """

    backend = "paquo"
    writes_qupath_data = True

    def __init__(self, path: Path, *, slides: Sequence[Path] = ()) -> None:
        super().__init__(path, slides=slides)
        self._annotation_files = AnnotationFiles(self._file, None)
        self._qupath = start_qupath()
        self.version = self._qupath.version

    @override
    def classes(self) -> Sequence[PathClass]:
        found = {known.name: known for known in read_classes(self.path)}
        for recorded in self._file.entries:
            for name in self._folder(recorded.id).recorded_classes():
                found.setdefault(name, PathClass(name))
        return tuple(found.values())

    @override
    def annotations_in_qupath(self, entry: Entry) -> Sequence[Annotation]:
        data = self._read(entry)
        if data is None:
            return self._annotation_files.read(entry)[1]
        return tuple(read_annotations(data.annotations_as_geojson()))

    @override
    def annotation_note(self, entry: Entry) -> str | None:
        folder = self._folder(self._recorded(entry).id)
        if not folder.data.exists() or not all(map(is_own_class, folder.recorded_classes())):
            return None
        try:
            in_file = self._annotation_files.read(entry)[1]
        except QprdError:  # of a file that is not used
            return None
        names = (annotation.class_name for annotation in in_file)
        if not any(name is not None and not is_own_class(name) for name in names):
            return None
        return (
            "Annotations in qprd/annotations are not used, as QuPath has saved the image without "
            "any: drag the image's file from there onto it in QuPath, and save."
        )

    @override
    def stored_metadata(self, entry: Entry) -> Mapping[str, str]:
        return own_metadata(self._recorded(entry).metadata)

    @override
    def read_predictions(self, entry: Entry) -> Predictions:
        data = self._read(entry)
        metadata = own_metadata(self._recorded(entry).metadata)
        if data is None:
            return Predictions(tiles=(), contours=(), metadata=metadata)
        return data.predictions(metadata)

    # Ours are annotations of our own classes with our mean score, and tiles by our name with our
    # score. Objects that a person put below one of ours move up to the nearest ancestor that stays.
    @override
    def write_predictions(self, entry: Entry, predictions: Predictions) -> WriteReport:
        meant = storable(predictions)
        replaced = 0

        def edit(data: EntryData) -> _Change:
            nonlocal meant, replaced
            others = data.digests()
            meant, replaced = data.replace_own(meant, others)
            own_classes = []
            if meant.contours:
                own_classes.append(PathClass(meant.contour_class, meant.contour_color))
            if meant.review:
                own_classes.append(PathClass(REVIEW_CLASS, REVIEW_COLOR))
            return _Change(
                verify=lambda stored, where: self._compare(meant, stored, others, where),
                metadata=meant.metadata,
                path_classes=tuple(own_classes),
                removal=not (meant.tiles or meant.annotations or meant.metadata),
            )

        where, files = self._rewrite(Subject(entry.id, entry.name), edit, entry, "write-back")
        return WriteReport.of(entry, meant, replaced, where, files)

    @override
    def import_annotations(self, entry: Entry, imported: AnnotationImport) -> ImportReport:
        plan = plan_import(entry.id, imported, ())

        def edit(data: EntryData) -> _Change | None:
            nonlocal plan
            existing = read_annotations(data.annotations_as_geojson())
            plan = plan_import(entry.id, imported, existing)
            if not plan.added and not plan.outdated:
                return None
            others = data.digests_without(plan.outdated)
            data.replace_annotations(plan.outdated, plan.added, plan.path_class)
            return _Change(
                verify=lambda stored, where: self._compare_import(plan, stored, others, where),
                path_classes=(plan.path_class,) if plan.added else (),
            )

        origin = ImportedFrom(imported.source, plan.path_class.name)
        subject = Subject(entry.id, entry.name, origin)
        where, files = self._rewrite(subject, edit, entry, "import-asap")
        return plan.report(entry.id, where, files)

    @override
    def restore_own(
        self, entry: Entry, earlier: Mapping[str, Path | None], imported: ImportedFrom | None
    ) -> tuple[Path, ...]:
        recorded = self._recorded(entry)
        name = self._folder(recorded.id).data.relative_to(self.path.parent).as_posix()
        if name not in earlier:
            raise QprdError(
                "It was written as a file, and that has changed since.",
                where=entry.name,
                fix="Run qprd remove, which takes out all that is qprd's.",
            )
        file = earlier[name]
        data = None if file is None else EntryData.read_file(self._qupath, file)
        if imported is not None:
            had = (
                self._annotation_files.read(entry)[1]
                if data is None
                else read_annotations(data.annotations_as_geojson())
            )
            return self.import_annotations(entry, earlier_import(entry.id, imported, had)).files
        project = earlier.get(self.path.name)
        metadata = (
            own_metadata(recorded.metadata)
            if project is None
            else recorded_metadata(project, recorded.id)
        )
        before = Predictions((), (), metadata=metadata)
        if data is not None:
            before = data.predictions(metadata)
        for lost in before.unusable:
            self._access.note(f"{entry.name}: an object of qprd's does not come back: {lost}.")
        return self.write_predictions(entry, before).files

    def _rewrite(
        self,
        subject: Subject,
        edit: Callable[[EntryData], _Change | None],
        entry: Entry,
        command: str,
    ) -> tuple[Path, tuple[Path, ...]]:
        """Let `edit` change an entry's objects; save them if what QuPath stored is what was meant.

        What QuPath saved since the project was opened is read again and kept.

        Returns:
            The entry's data file, and all files that changed.

        Raises:
            QprdError: all files are as they were.
        """
        folder = self._folder(self._recorded(entry).id)
        with self._access.transaction(subject, command) as transaction:
            # QuPath makes the last of them while it saves.
            for path in (self.path, folder.data, folder.summary, folder.backup):
                transaction.expect(path)
            self._reread()
            recorded = self._recorded(entry)
            self._refuse_another_frame(entry, recorded)
            data = self._read(entry)
            staged = transaction.stage(folder.data)
            if data is None:
                data = self._create(entry, staged)
            objects_before = data.count()
            change = edit(data)
            if change is None:
                return folder.data, ()
            data.write(staged)
            objects = data.count()
            summary = data.summary(folder.read_summary(), entry.source)
            data_classes = data.classes()
            # Two copies of a large hierarchy are enough.
            del data
            change.verify(EntryData.read_file(self._qupath, staged), folder.data)
            transaction.stage_text(folder.summary, summary)
            file, metadata = (self._file, self._state), change.metadata
            if metadata is not None and dict(metadata) != own_metadata(recorded.metadata):
                written = stage_own_metadata(transaction, self.path, {recorded.id: metadata})
                file = self._file.with_own_metadata(recorded.id, metadata), FileState.of(written)
            gone = self._classes_gone(recorded.id, data_classes) if change.removal else ()
            classes = with_classes(self.path, change.path_classes, gone)
            if classes is not None:
                transaction.expect(classes_path(self.path))
                transaction.stage_text(classes_path(self.path), classes)
            # Whatever happens in between, the summary must not claim more objects than there are:
            # that would look like loss.
            first = folder.summary if objects < objects_before else folder.data
            files = transaction.commit(first=first)
        self._use(*file)
        # After a dry run it is as it was.
        self._reread()
        return folder.data, files

    def _classes_gone(self, entry_id: str, left: Collection[str]) -> list[str]:
        """Those of our classes that no image bears, if these are left in this one."""
        own = {known.name for known in read_classes(self.path) if is_own_class(known.name)}
        # A removal goes through the images in order: those that still have ours come last.
        others = [
            self._folder(known.id) for known in reversed(self._file.entries) if known.id != entry_id
        ]
        return [
            name for name in own.difference(left) if not any(other.bears(name) for other in others)
        ]

    def _folder(self, entry_id: str) -> EntryFolder:
        return EntryFolder.of(self.path, entry_id)

    def _read(self, entry: Entry) -> EntryData | None:
        recorded = self._recorded(entry)
        self._set_class_colors()
        return EntryData.read(self._qupath, self._folder(recorded.id))

    def _create(self, entry: Entry, path: Path) -> EntryData:
        """Data of an image that QuPath has never saved, with what is drawn in its file."""
        data = EntryData.create(
            self._qupath,
            path,
            server=server_builder(self.path, entry.id),
            image_type="UNSET",
            full_id=f"{self.path}::{entry.id}",
        )
        root, annotations = self._annotation_files.read(entry)
        features, faults = intact_features(root, entry.name) if annotations else ([], [])
        if faults:
            self._access.note(
                f"{entry.name}: {counted(len(faults), 'object')} of qprd/annotations cannot be "
                f"brought into QuPath ({faults[0]})"
            )
        if features:
            data.add_geojson(json.dumps({"type": "FeatureCollection", "features": features}))
        return data

    def _set_class_colors(self) -> None:
        """As QuPath does when it opens a project: a class has one color in a whole process."""
        with qupath_call("QuPath cannot use the project's classes", classes_path(self.path)):
            for known in read_classes(self.path):
                if known.color is not None:
                    self._qupath.bulk.setColor(known.name, argb_from_color(known.color))

    def _compare(self, meant: Predictions, stored: EntryData, others: object, where: Path) -> None:
        refuse_changes(self._changed(others, stored.digests(), where), where)
        compare(meant, stored.annotations(meant.metadata), stored.tiles(), where)

    def _compare_import(
        self, plan: ImportPlan, stored: EntryData, others: object, where: Path
    ) -> None:
        others_stored = stored.digests_without([annotation.id for annotation in plan.added])
        refuse_changes(self._changed(others, others_stored, where), where)
        differs = difference(plan.added, read_annotations(stored.annotations_as_geojson()))
        if differs is not None:
            raise stored_otherwise(differs, where)

    def _changed(self, before: object, after: object, where: Path) -> list[str]:
        with qupath_call("QuPath cannot compare its objects", where):
            return [str(item) for item in self._qupath.bulk.changed(before, after)]

    def _refuse_another_frame(self, entry: Entry, recorded: Entry) -> None:
        was, now = entry.source, recorded.source
        if (was.uri, was.rotation, was.crop) != (now.uri, now.rotation, now.crop):
            raise QprdError(
                f"{entry.name} is turned, cropped or another file in the project now; nothing was "
                "written.",
                where=str(self.path),
                fix="Close the project in QuPath, then run qprd predict again.",
            )
