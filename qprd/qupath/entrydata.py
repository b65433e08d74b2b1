"""An entry's data folder, read and written by QuPath: objects in, objects out, nothing lost.

QuPath hands out an empty image where it cannot read ``data.qpdata``; saving that would erase a
person's work. Here an unreadable file is an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from qprd.errors import QprdError
from qprd.predictions import (
    FAULT,
    MEAN_SCORE,
    OLD_TILE_NAME,
    REVIEW_CLASS,
    REVIEW_COLOR,
    SCORE,
    TILE_COLOR,
    PredictedAnnotation,
    PredictedTile,
    Predictions,
    another_id,
    is_own_class,
)
from qprd.qupath.comparison import TileTable, measurement_table
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.java import QuPath, qupath_call
from qprd.qupath.pathclasses import argb_from_color
from qprd.qupath.precision import on_grid
from qprd.qupath.predictions_geojson import predictions_from_geojson
from qprd.qupath.project import DEFAULT_COLOR, Annotation, PathClass, SlideSource


class EntryData:
    """The objects of one entry in QuPath's memory: a Java ``DataFile``, read from a path."""

    def __init__(self, qupath: QuPath, file: Any, path: Path) -> None:
        self._qupath = qupath
        self._file = file
        self._path = path
        self._found_own: tuple[Any, Any] | None = None

    @classmethod
    def read(cls, qupath: QuPath, folder: EntryFolder) -> EntryData | None:
        """Read an entry's data, None if QuPath has saved none yet.

        Raises:
            QprdError: the data cannot be read completely, or lack objects that QuPath has saved.
        """
        recorded = folder.recorded_objects()
        if not folder.data.exists():
            if folder.backup.exists() or (recorded or 0) > 1:
                raise _lost(folder, "is missing")
            return None
        try:
            data = cls.read_file(qupath, folder.data)
        except QprdError as error:
            raise _lost(folder, f"cannot be read ({error.problem})", error.fix) from error
        if recorded is not None and data.count() < recorded:
            raise _lost(
                folder,
                f"holds {data.count() - 1} objects, but QuPath had saved {recorded - 1} "
                "(summary.json)",
            )
        return data

    @classmethod
    def read_file(cls, qupath: QuPath, path: Path) -> EntryData:
        """Read one data file, to its end.

        Raises:
            QprdError: it cannot be read completely.
        """
        with qupath_call("QuPath cannot read it", path):
            return cls(qupath, qupath.data_file.read(str(path)), path)

    @classmethod
    def create(
        cls, qupath: QuPath, path: Path, *, server: object, image_type: str, full_id: str
    ) -> EntryData:
        """Let QuPath write the data of an image without objects to a new file, and read them.

        Args:
            qupath: The running QuPath.
            path: The file.
            server: The entry's ``serverBuilder`` in the project file.
            image_type: ``UNSET``, or another if the server's metadata are recorded.
            full_id: ``<project file>::<entry id>``.
        """
        with qupath_call("QuPath cannot save this image", path):
            qupath.data_file.create(str(path), json.dumps(server), image_type, full_id)
        return cls.read_file(qupath, path)

    def count(self) -> int:
        """Number of objects, the root included."""
        return int(self._qupath.bulk.countObjects(self._file.hierarchy))

    def classes(self) -> set[str]:
        """Names of the classes that any object has."""
        return {str(name) for name in self._qupath.bulk.classNames(self._file.hierarchy)}

    def annotations_as_geojson(self) -> str:
        """QuPath's own export of all annotations; those that it cannot export have a fault."""
        return self._as_geojson(self._file.hierarchy.getAnnotationObjects())

    def add_geojson(self, text: str) -> None:
        """Add the objects of a GeoJSON file below the root."""
        with qupath_call("QuPath cannot read this GeoJSON", self._path):
            self._qupath.bulk.addGeoJson(self._file.hierarchy, text)
            self._found_own = None

    def predictions(self, metadata: Mapping[str, str]) -> Predictions:
        """Our objects, as they are stored, on QuPath's grid of 0.01 px, with the given metadata."""
        return replace(self.annotations(metadata), tiles=self.tiles().tiles())

    def tiles(self) -> TileTable:
        """Our tiles, as they are stored, on QuPath's grid of 0.01 px."""
        with qupath_call("QuPath cannot list its objects", self._path):
            columns = self._qupath.bulk.columns(self._own()[0])
            ids = str(columns["ids"]).splitlines()
            bounds = np.array(columns["bounds"], float).reshape(-1, 4)
            names = [str(name) for name in columns["measurements"]]
            values = np.array(columns["values"], float).reshape(len(ids), len(names))
        return TileTable(ids, on_grid(bounds), names, values)

    def annotations(self, metadata: Mapping[str, str]) -> Predictions:
        """`predictions` without the tiles."""
        with qupath_call("QuPath cannot list its objects", self._path):
            own = self._own()[1]
        found = predictions_from_geojson(self._as_geojson(own), where=str(self._path))
        return replace(found, metadata=dict(metadata))

    def digests(self) -> Any:
        """A Java map from the id of each object that is not ours to a digest of all it is.

        Its parent is taken to be the nearest ancestor that is not ours.
        """
        with qupath_call("QuPath cannot list its objects", self._path):
            return self._qupath.bulk.digests(self._file.hierarchy, self._all_own())

    def digests_without(self, ids: Sequence[str]) -> Any:
        """Like `digests`, of each object but the annotations with these ids, ours included."""
        with qupath_call("QuPath cannot list its objects", self._path):
            return self._qupath.bulk.digests(self._file.hierarchy, self._annotations(ids))

    def replace_annotations(
        self, removed: Sequence[str], added: Sequence[Annotation], path_class: PathClass
    ) -> None:
        """Take annotations out by id and put others in below the root, in memory.

        What lies below one that is taken out moves up to what that lay in. Those that are put in
        are polygons and multipolygons of the given class; its color counts where QuPath knows no
        class of its name.
        """
        with qupath_call("QuPath cannot add the annotations", self._path):
            created = self._created(added, path_class)
            self._qupath.bulk.replace(self._file.hierarchy, self._annotations(removed), created)
            self._found_own = None

    def replace_own(self, predictions: Predictions, others: Any) -> tuple[Predictions, int]:
        """Put predictions, on QuPath's grid, in place of our objects, in memory.

        ``others`` are the `digests` of all other objects, whose ids are taken.

        Returns:
            The predictions with the ids that they got, and how many objects they replace.
        """
        bulk = self._qupath.bulk
        with qupath_call("QuPath cannot add the predictions", self._path):
            own = self._all_own()
            ids = [tile.id for tile in predictions.tiles]
            ids += [region.id for region in predictions.annotations]
            taken = {ids[index] for index in bulk.taken(others, "\n".join(ids))}
            predictions = _with_free_ids(predictions, taken, others)
            tiles = TileTable.of(predictions.tiles)
            added = bulk.createTiles(
                "\n".join(tiles.ids),
                tiles.places.ravel(),
                list(tiles.names),
                tiles.values.ravel(),
                TILE_COLOR,
            )
            contour_class = PathClass(predictions.contour_class, predictions.contour_color)
            added.addAll(self._created(predictions.contours, contour_class))
            review_class = PathClass(REVIEW_CLASS, REVIEW_COLOR)
            added.addAll(self._created(predictions.review, review_class))
            replaced = int(own.size())
            bulk.replace(self._file.hierarchy, own, added)
            self._found_own = None
        return predictions, replaced

    def _created(
        self, regions: Sequence[PredictedAnnotation | Annotation], path_class: PathClass
    ) -> Any:
        """Java annotations of these regions; as GeoJSON, QuPath would turn their outlines."""
        names, values = measurement_table(
            [one.measurements if isinstance(one, PredictedAnnotation) else {} for one in regions]
        )
        outlines = [
            one.polygon if isinstance(one, PredictedAnnotation) else one.geometry for one in regions
        ]
        return self._qupath.bulk.createAnnotations(
            [one.id for one in regions],
            [shapely.to_wkb(outline, hex=True) for outline in outlines],
            [one.name or "" for one in regions],
            path_class.name,
            argb_from_color(path_class.color or DEFAULT_COLOR),
            names,
            values.ravel(),
        )

    def write(self, path: Path) -> None:
        """Write the data to a new file, forced to the disk.

        Raises:
            QprdError: it cannot be written, or something in it is not known to this QuPath.
        """
        unknown = [str(name) for name in self._file.unknown]
        if unknown:
            raise QprdError(
                f"The data of this image hold what this QuPath does not know: {unknown[0]}. "
                "Saving would lose it.",
                where=str(self._path),
                fix="Use a QuPath with the same extensions, or --backend exchange.",
            )
        with qupath_call("QuPath cannot save; the project is as it was", self._path):
            self._file.write(str(path))

    def summary(self, earlier: Mapping[str, object], source: SlideSource) -> str:
        """The text of a ``summary.json``, as QuPath writes it."""
        server: object = earlier.get("server")
        if server is None and source.width is not None and source.height is not None:
            size = {"width": source.width, "height": source.height}
            server = {**size, "sizeC": 3, "sizeZ": 1, "sizeT": 1}
        with qupath_call("QuPath cannot count its objects", self._path):
            hierarchy = json.loads(str(self._qupath.bulk.summary(self._file.hierarchy)))
            image_type = str(self._file.imageType())
        summary = {"timestamp": time.time_ns() // 10**6, "imageType": image_type}
        if server is not None:
            summary["server"] = server
        return json.dumps({**summary, "hierarchy": hierarchy}, ensure_ascii=False)

    def _as_geojson(self, objects: Any) -> str:
        with qupath_call("QuPath cannot export the annotations", self._path):
            exported = self._qupath.bulk.asGeoJson(objects, FAULT)
        return bytes(exported).decode("utf-8")

    def _annotations(self, ids: Sequence[str]) -> Any:
        return self._qupath.bulk.annotationsWithIds(self._file.hierarchy, list(ids))

    def _own(self) -> tuple[Any, Any]:
        """Java lists of our tiles and our annotations, searched for once."""
        if self._found_own is None:
            bulk, hierarchy = self._qupath.bulk, self._file.hierarchy
            classes = [str(name) for name in bulk.classNames(hierarchy)]
            own_classes = [name for name in classes if is_own_class(name)]
            regions = bulk.annotationsOfClasses(hierarchy, own_classes, MEAN_SCORE)
            self._found_own = bulk.tilesOf(hierarchy, OLD_TILE_NAME, SCORE), regions
        return self._found_own

    def _all_own(self) -> Any:
        tiles, regions = self._own()
        return self._qupath.bulk.joined(tiles, regions)


def _with_free_ids(predictions: Predictions, taken: set[str], others: Any) -> Predictions:
    """Give objects whose ids are taken others, derived from them.

    A contour that a person accepted keeps its id, which the same prediction would use again. So
    does a region to review that was judged: it is left out, as nobody is asked twice.
    """
    objects: list[PredictedTile | PredictedAnnotation] = [
        *predictions.tiles,
        *predictions.annotations,
    ]
    if not taken and len({item.id for item in objects}) == len(objects):
        return predictions
    used: set[str] = set()

    def free(object_id: str) -> str:
        candidate, attempt = object_id, 0
        while (
            candidate in used or candidate in taken or (attempt and others.containsKey(candidate))
        ):
            attempt += 1
            candidate = another_id(object_id, attempt)
        used.add(candidate)
        return candidate

    return replace(
        predictions,
        tiles=tuple(replace(tile, id=free(tile.id)) for tile in predictions.tiles),
        contours=tuple(replace(contour, id=free(contour.id)) for contour in predictions.contours),
        review=tuple(region for region in predictions.review if region.id not in taken),
    )


def _lost(folder: EntryFolder, what: str, fix: str | None = None) -> QprdError:
    if fix is None and folder.backup.exists():
        fix = f"Rename {folder.backup.name} beside it to {folder.data.name} if that is the latest."
    return QprdError(
        f"QuPath's data of this image are not used: {folder.data.name} {what}."
        " Saving now would erase what was drawn.",
        where=str(folder.data),
        fix=fix or "Restore the file from a backup.",
    )
