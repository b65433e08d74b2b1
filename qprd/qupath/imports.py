"""The plan of an import: annotations to add, and those of an earlier import to take out again.

An imported annotation is an ordinary one, as if it had been drawn in QuPath.
Its id is a digest of the entry, the source, its class, its name and its outline. So an annotation
that was imported and not changed since is known by its id alone, and one that a person changed is
the person's, as it does not fit its id any more.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import geojson
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.backups import ImportedFrom
from qprd.names import composed
from qprd.predictions import OWN, class_parts, is_own_class
from qprd.qupath.geojson import annotation_feature, own_member_of
from qprd.qupath.precision import area_on_grid, same_outline
from qprd.qupath.project import Annotation, AnnotationImport, ImportReport, PathClass

_NAMESPACE = uuid.UUID("c1b1a5b0-5d86-5c1c-8f0f-8c7b0b6c2f3e")


@dataclass(frozen=True)
class ImportPlan:
    """What an import does to the annotations of one entry.

    Attributes:
        outdated: Ids of those to take out: imported from this source earlier, not changed since,
            and not in it any more.
        edited: How many are there already, but changed by a person.
    """

    path_class: PathClass
    added: tuple[Annotation, ...]
    outdated: tuple[str, ...]
    unchanged: int
    edited: int

    def report(self, entry_id: str, where: Path, files: tuple[Path, ...]) -> ImportReport:
        """The report of carrying it out; ``where`` holds the annotations, ``files`` changed."""
        return ImportReport(
            entry_id=entry_id,
            added=len(self.added),
            unchanged=self.unchanged,
            edited=self.edited,
            removed=len(self.outdated),
            where=where,
            files=files,
        )


def plan_import(
    entry_id: str, imported: AnnotationImport, existing: Sequence[Annotation]
) -> ImportPlan:
    """Compare what is to be imported with what an entry has.

    Raises:
        QprdError: the class is qprd's own or none, or an area vanishes at QuPath's precision.
    """
    class_name = ": ".join(class_parts(imported.path_class.name))
    if not class_name.strip(": ") or is_own_class(class_name):
        raise QprdError(
            f"Annotations cannot be imported with the class {imported.path_class.name!r}.",
            fix="Name a class of your own, such as Tumor.",
        )
    wanted: dict[str, Annotation] = {}
    for name, region in imported.areas:
        geometry = area_on_grid(region)
        if geometry is None:
            raise QprdError(
                f"The region {name!r} has no area at a precision of 0.01 px.",
                fix="Leave it out of the file.",
            )
        own_id = _id(entry_id, imported.source, class_name, name, geometry)
        wanted[own_id] = Annotation(own_id, geometry, class_name, name or None)
    copies = Counter(annotation.id for annotation in existing)
    unchanged = {
        annotation.id
        for annotation in existing
        if copies[annotation.id] == 1 and _is_as_imported(annotation, entry_id, imported.source)
    }
    locked = {annotation.id for annotation in existing if annotation.locked}
    return ImportPlan(
        path_class=PathClass(class_name, imported.path_class.color),
        added=tuple(wanted[own_id] for own_id in wanted if own_id not in copies),
        outdated=tuple(sorted(unchanged - wanted.keys() - locked)),
        unchanged=len(wanted.keys() & unchanged),
        edited=len(wanted.keys() & copies.keys() - unchanged),
    )


def _is_as_imported(annotation: Annotation, entry_id: str, source: str) -> bool:
    class_name, geometry = annotation.class_name, annotation.geometry
    return (
        class_name is not None
        and geometry.geom_type in ("Polygon", "MultiPolygon")
        and annotation.id == _id(entry_id, source, class_name, annotation.name or "", geometry)
    )


def earlier_import(
    entry_id: str, imported: ImportedFrom, earlier: Sequence[Annotation]
) -> AnnotationImport:
    """The import that leaves of a source what an entry had of it before, of all that it had then.

    Raises:
        QprdError: that had several classes, which one import cannot give.
    """
    of_source = [one for one in earlier if _is_as_imported(one, entry_id, imported.source)]
    classes = {one.class_name or "" for one in of_source} or {imported.class_name}
    if len(classes) > 1:
        raise QprdError(
            f"What had been imported from {imported.source} before has several classes: "
            + ", ".join(sorted(classes)),
            fix="Import it again with the class that is meant.",
        )
    return AnnotationImport(
        source=imported.source,
        path_class=PathClass(classes.pop()),
        areas=tuple((one.name or "", one.geometry) for one in of_source),
    )


def difference(added: Sequence[Annotation], stored: Sequence[Annotation]) -> str | None:
    """What of the added annotations was not stored as meant, None if all was."""
    found = {annotation.id: annotation for annotation in stored}
    for meant in added:
        there = found.get(meant.id)
        if there is None:
            return f"annotation {meant.id} is missing"
        if replace(there, geometry=meant.geometry) != meant:
            return f"the class, name or lock of annotation {meant.id}"
        if not same_outline(meant.geometry, there.geometry):
            return f"the outline of annotation {meant.id}"
    return None


def same_annotations(before: Sequence[Annotation], after: Sequence[Annotation]) -> bool:
    """Whether a file's annotations are the same; where it has no ids, places stand in for them."""
    return [replace(one, id="") for one in before] == [replace(one, id="") for one in after]


def with_imported(root: object, plan: ImportPlan, member: Mapping[str, object]) -> str:
    """The text of a GeoJSON collection after an import.

    Args:
        root: The parsed collection, list or feature as it was, in which `objects_of` found no
            fault; None where there was none.
        plan: What to add, and what to take out.
        member: What the collection's ``qprd`` member is to say, beside what it says already.
    """
    collection: dict[str, object]
    if isinstance(root, Mapping) and root.get("type") == "FeatureCollection":
        collection = dict(root)
    else:
        single = [] if root is None else [root]
        collection = {
            "type": "FeatureCollection",
            "features": root if isinstance(root, list) else single,
        }
    features, own = collection["features"], own_member_of(root)
    assert isinstance(features, list)
    listed = own.get("imported")
    imported = listed if isinstance(listed, list) else []
    collection["features"] = [
        *(f for f in features if not (isinstance(f, Mapping) and f.get("id") in plan.outdated)),
        *(
            annotation_feature(one.id, one.geometry, plan.path_class, one.name)
            for one in plan.added
        ),
    ]
    collection[OWN] = {
        **own,
        **member,
        "imported": [
            *(one for one in imported if one not in plan.outdated),
            *(annotation.id for annotation in plan.added),
        ],
    }
    return str(geojson.dumps(collection))


def _id(entry_id: str, source: str, class_name: str, name: str, geometry: BaseGeometry) -> str:
    polygons = [
        shapely.Polygon(_corners(polygon.exterior), [_corners(hole) for hole in polygon.interiors])
        for polygon in shapely.get_parts(geometry)
    ]
    outline = shapely.to_wkb(shapely.normalize(shapely.MultiPolygon(polygons)), byte_order=1)
    parts = [entry_id, source, composed(class_name), name, hashlib.sha256(outline).hexdigest()]
    return str(uuid.uuid5(_NAMESPACE, json.dumps(parts)))


def _corners(ring: shapely.LinearRing) -> NDArray[np.float64]:
    """The vertices of a ring that QuPath keeps: in single precision, none on a straight line."""
    drawn: NDArray[np.float64] = shapely.get_coordinates(ring)
    points = drawn[:-1].astype(np.float32).astype(np.float64)
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = np.roll(points, 1, axis=0) - points, np.roll(points, -1, axis=0) - points
    # Exact, as products of single-precision numbers fit into double precision.
    corners = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners if len(corners) >= 3 else drawn
