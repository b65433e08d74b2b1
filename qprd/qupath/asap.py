"""Tumor outlines drawn in ASAP: its XML, and the JSON that tools around Camelyon16 made of it.

Groups mean what they do in the Camelyon challenges. The coordinates are level-0 pixels of the whole
file, as OpenSlide counts them, which need not be QuPath's frame (see `qprd.slides.frame`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.jsonfile import read_bytes, read_json, well_formed
from qprd.qupath.outlines import MAX_CROSSINGS, repaired

#: Group names, case-folded. ``_0``, ``_1``, ``_2`` and Tumor, Exclusion are Camelyon16's,
#: metastases and normal Camelyon17's, positive and negative those of the JSON files.
TUMOR_GROUPS = frozenset({"_0", "_1", "tumor", "metastasis", "metastases", "positive"})
HOLE_GROUPS = frozenset({"_2", "exclusion", "negative", "normal"})

_MAX_BYTES = 64 * 2**20
_MAX_POINTS = 2_000_000
_MAX_NOTES = 10
_SHOWN_CHARACTERS = 60
_XML, _JSON = "an annotation file from ASAP", "a JSON file of Camelyon16 annotations"
#: Types that have an area; Dot, PointSet, Measurement and None have none.
_AREAS = ("Polygon", "Spline", "Rectangle")


class TumorOutline(NamedTuple):
    """One annotation of a tumor group.

    Attributes:
        geometry: Polygon or MultiPolygon, valid, not empty, the holes of hole groups cut out;
            level-0 pixels of the file.
    """

    name: str
    geometry: BaseGeometry


@dataclass(frozen=True)
class AsapAnnotations:
    """What a file says about tumor.

    Attributes:
        tumor: In the file's order; may overlap.
    """

    tumor: tuple[TumorOutline, ...]
    notes: tuple[str, ...]


def read_asap(path: Path) -> AsapAnnotations:
    """Read the tumor of an ASAP file, or of a Camelyon16 JSON file if its name ends in ``.json``.

    Annotations of groups that mean neither tumor nor hole, and those without an area, are left out
    and noted. A subgroup means what the nearest group above it means.

    Raises:
        QprdError: it cannot be read, is something else, is too large, or a coordinate is not a
            finite number.
    """
    is_json = path.suffix.lower() == ".json"
    return _sorted_by_group(_read_json(path) if is_json else _read_xml(path))


@dataclass(frozen=True)
class _Drawn:
    """One annotation as a file has it; its points are (n, 2)."""

    name: str
    kind: str
    group: str
    points: NDArray[np.float64]

    def polygon(self) -> shapely.Polygon | None:
        """The outline as it is drawn, valid or not; None if there is nothing to enclose."""
        points = self.points
        if self.kind not in _AREAS:
            return None
        if self.kind == "Rectangle" and len(points) == 2:
            return shapely.box(*points.min(axis=0), *points.max(axis=0))
        return shapely.Polygon(points) if len(points) >= 3 else None


@dataclass
class _File:
    """A file's contents, not yet judged."""

    where: str
    drawn: list[_Drawn] = field(default_factory=list)
    #: Group to the group it is part of.
    parents: dict[str, str] = field(default_factory=dict)
    points: int = 0

    def add(
        self, name: str, kind: str, group: str, points: Sequence[tuple[object, object]]
    ) -> None:
        """Add an annotation; its coordinates may be anything."""
        self.points += len(points)
        if self.points > _MAX_POINTS:
            raise QprdError(
                f"This file has more than {_MAX_POINTS:,} points.",
                where=self.where,
                fix="Split it into several files.",
            )
        numbers = np.array([_numbers(x, y) for x, y in points], np.float64).reshape(-1, 2)
        is_wrong = ~np.isfinite(numbers).all(axis=1)
        if is_wrong.any():
            x, y = points[int(np.argmax(is_wrong))]
            raise QprdError(
                f"Annotation {len(self.drawn) + 1} ({_shown(name)}) has a coordinate that "
                f"is not a finite number: {_shown(str(x))}, {_shown(str(y))}.",
                where=self.where,
                fix="Correct it where it was drawn.",
            )
        self.drawn.append(_Drawn(name, kind, group, numbers))


def _numbers(x: object, y: object) -> tuple[float, float]:
    try:
        return float(str(x)), float(str(y))
    except ValueError:
        return math.nan, math.nan


def _read_xml(path: Path) -> _File:
    data = read_bytes(path, what=_XML, limit_bytes=_MAX_BYTES)
    file, root = _File(str(path)), None
    try:
        for event, element in iterparse(BytesIO(data), events=("start", "end"), forbid_dtd=True):
            root = root if root is not None else element
            if root.tag != "ASAP_Annotations":
                raise ValueError(f"its root is {_shown(root.tag)}, not ASAP_Annotations")
            if event == "end" and element.tag == "Annotation":
                file.add(
                    element.get("Name", ""),
                    element.get("Type", "None"),
                    element.get("PartOfGroup", "None"),
                    [(c.get("X"), c.get("Y")) for c in _in_order(element.iter("Coordinate"))],
                )
                # What has been read need not stay in memory.
                element.clear()
            elif event == "end" and element.tag == "Group":
                parent = element.get("PartOfGroup", "None")
                file.parents.setdefault(element.get("Name", ""), parent)
    except DefusedXmlException as error:
        raise _not(_XML, "it defines a document type or entities", path) from error
    except (ParseError, ValueError, LookupError) as error:
        raise _not(_XML, f"it is not valid XML ({error})", path) from error
    return file


def _in_order(coordinates: Iterable[Element]) -> list[Element]:
    """Coordinates by their places in the outline, where all have one; else as they stand."""
    points = list(coordinates)
    places = [point.get("Order", "") for point in points]
    # Nineteen digits are more than any count; longer ones take long to convert.
    if not all(place.isdecimal() and len(place) < 19 for place in places):
        return points
    return [points[i] for i in np.argsort(np.array(places, np.int64), kind="stable").tolist()]


def _read_json(path: Path) -> _File:
    root = read_json(path, what=_JSON, limit_bytes=_MAX_BYTES)
    if not isinstance(root, dict) or not any(_meaning(group, {}) for group in root):
        raise _not(_JSON, 'it has neither "positive" nor "negative"', path)
    file = _File(str(path))
    for group, members in root.items():
        for member in members if isinstance(members, list) else [members]:
            vertices = member.get("vertices") if isinstance(member, dict) else None
            if not isinstance(vertices, list):
                number = len(file.drawn) + 1
                raise _not(_JSON, f"annotation {number} has no list of vertices", path)
            name = member.get("name")
            points = [v if isinstance(v, list) and len(v) == 2 else (v, "") for v in vertices]
            file.add(
                name if isinstance(name, str) else "", "Polygon", group, [(x, y) for x, y in points]
            )
    return file


def _sorted_by_group(file: _File) -> AsapAnnotations:
    """Sort outlines by what their groups mean, and cut the holes out of the tumor."""
    notes: Counter[str] = Counter()
    tumor: list[TumorOutline] = []
    holes: list[BaseGeometry] = []
    for drawn in file.drawn:
        meaning = _meaning(drawn.group, file.parents)
        if meaning is None:
            notes[
                f"annotations left out: their group {_shown(drawn.group)} means neither tumor "
                "(_0, _1, Tumor, metastasis) nor hole (_2, Exclusion, negative)"
            ] += 1
            continue
        polygon = drawn.polygon()
        whole = None if polygon is None else repaired(polygon)
        if polygon is not None and whole is None:
            notes[f"outlines left out: they cross themselves more than {MAX_CROSSINGS} times"] += 1
            continue
        area = None if whole is None else _polygons_of(whole)
        if area is None:
            notes[f"annotations of type {_shown(drawn.kind)} left out: no area"] += 1
            continue
        if whole is not polygon:
            notes["outlines crossed themselves and were repaired"] += 1
        if drawn.kind == "Spline":
            notes["splines taken as polygons through their points"] += 1
        if meaning == "tumor":
            tumor.append(TumorOutline(well_formed(drawn.name), area))
        else:
            holes.append(area)
    tumor = _without_holes(tumor, holes, notes)
    said = [f"{count} {what}" for what, count in list(notes.items())[:_MAX_NOTES]]
    if len(notes) > _MAX_NOTES:
        said.append(f"{sum(list(notes.values())[_MAX_NOTES:])} more, of other kinds")
    return AsapAnnotations(tuple(tumor), tuple(said))


def _without_holes(
    tumor: list[TumorOutline], holes: list[BaseGeometry], notes: Counter[str]
) -> list[TumorOutline]:
    kept: list[TumorOutline] = []
    used: set[int] = set()
    tree = shapely.STRtree(holes)
    for name, area in tumor:
        touched = tree.query(area, predicate="intersects").tolist()
        used.update(touched)
        cut = [holes[index] for index in touched]
        rest = _polygons_of(area.difference(shapely.union_all(cut)) if cut else area)
        if rest is None:
            notes["tumor annotations left out: holes cover them"] += 1
        else:
            kept.append(TumorOutline(name, rest))
    if len(used) < len(holes):
        notes["holes are in no tumor and change nothing"] = len(holes) - len(used)
    return kept


def _meaning(group: str, parents: Mapping[str, str]) -> str | None:
    """``tumor`` or ``hole``, going up from a group to those it is part of; None if neither."""
    seen: set[str] = set()
    while group not in seen:
        seen.add(group)
        folded = group.strip().casefold()
        if folded in TUMOR_GROUPS:
            return "tumor"
        if folded in HOLE_GROUPS:
            return "hole"
        group = parents.get(group, group)
    return None


def _polygons_of(geometry: BaseGeometry) -> BaseGeometry | None:
    """The polygons of a geometry; None if there is no area."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    polygons = [part for part in parts if isinstance(part, shapely.Polygon) and part.area > 0]
    if len(polygons) == 1:
        return polygons[0]
    return shapely.MultiPolygon(polygons) if polygons else None


def _shown(text: str) -> str:
    """A stranger's text in quotes, not longer than a line."""
    text = well_formed(text)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _not(what: str, why: str, path: Path) -> QprdError:
    return QprdError(f"This is not {what}: {why}.", where=str(path), fix=f"Give {what}.")
