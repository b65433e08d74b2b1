"""Tumor outlines drawn in ASAP: its XML, and the JSON that tools around Camelyon16 made of it.

Groups mean what they do in the Camelyon challenges. The coordinates are level-0 pixels of the whole
file, as OpenSlide counts them, which need not be QuPath's frame (see `qprd.slides.frame`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import shapely
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse
from shapely.geometry import MultiPolygon

from qprd.errors import QprdError
from qprd.files.jsonfile import read_bytes, read_json, well_formed
from qprd.qupath.outlines import MAX_CROSSINGS, repaired
from qprd.shapes import multipolygon

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
        geometry: Valid, not empty, the holes of hole groups cut out; level-0 pixels of the file.
    """

    name: str
    geometry: MultiPolygon


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
    drawn, parents = _read_json(path) if path.suffix.lower() == ".json" else _read_xml(path)
    if sum(len(one.points) for one in drawn) > _MAX_POINTS:
        raise QprdError(
            f"This file has more than {_MAX_POINTS:,} points.",
            where=str(path),
            fix="Split it into several files.",
        )
    notes: Counter[str] = Counter()
    areas: dict[str, list[TumorOutline]] = {"tumor": [], "hole": []}
    for number, one in enumerate(drawn, start=1):
        # Coordinates are checked of what is left out, too: the file may be damaged.
        outline = one.outline(where=f"{path}, annotation {number}")
        meaning = _meaning(one.group, parents)
        if meaning is None:
            notes[
                f"annotations left out: their group {_shown(one.group)} means neither tumor "
                "(_0, _1, Tumor, metastasis) nor hole (_2, Exclusion, negative)"
            ] += 1
        elif (area := _area(outline, one.kind, notes)) is not None:
            areas[meaning].append(TumorOutline(well_formed(one.name), area))
    tumor = _without_holes(areas["tumor"], [hole.geometry for hole in areas["hole"]], notes)
    said = [f"{count} {what}" for what, count in list(notes.items())[:_MAX_NOTES]]
    if len(notes) > _MAX_NOTES:
        said.append(f"{sum(list(notes.values())[_MAX_NOTES:])} more, of other kinds")
    return AsapAnnotations(tuple(tumor), tuple(said))


class _Drawn(NamedTuple):
    """One annotation as a file has it; its points may be anything."""

    name: str
    kind: str
    group: str
    points: Sequence[tuple[object, object]]

    def outline(self, *, where: str) -> shapely.Polygon | None:
        """The outline as it is drawn, valid or not; None if there is nothing to enclose."""
        numbers = np.array([_numbers(x, y) for x, y in self.points], np.float64).reshape(-1, 2)
        is_wrong = ~np.isfinite(numbers).all(axis=1)
        if is_wrong.any():
            x, y = self.points[int(np.argmax(is_wrong))]
            raise QprdError(
                f"An annotation ({_shown(self.name)}) has a coordinate that is not a finite "
                f"number: {_shown(str(x))}, {_shown(str(y))}.",
                where=where,
                fix="Correct it where it was drawn.",
            )
        if self.kind == "Rectangle" and len(numbers) == 2:
            return shapely.box(*numbers.min(axis=0), *numbers.max(axis=0))
        return shapely.Polygon(numbers) if self.kind in _AREAS and len(numbers) >= 3 else None


def _numbers(x: object, y: object) -> tuple[float, float]:
    try:
        return float(str(x)), float(str(y))
    except ValueError:
        return math.nan, math.nan


#: Annotations, and the group that each group is part of.
_Contents = tuple[list[_Drawn], Mapping[str, str]]


def _read_xml(path: Path) -> _Contents:
    data = read_bytes(path, what=_XML, limit_bytes=_MAX_BYTES)
    drawn: list[_Drawn] = []
    parents: dict[str, str] = {}
    try:
        elements = iterparse(BytesIO(data), forbid_dtd=True)
        for _, element in elements:
            name, group = element.get("Name", ""), element.get("PartOfGroup", "None")
            if element.tag == "Annotation":
                points = [(c.get("X"), c.get("Y")) for c in _in_order(element.iter("Coordinate"))]
                drawn.append(_Drawn(name, element.get("Type", "None"), group, points))
                # What has been read need not stay in memory.
                element.clear()
            elif element.tag == "Group":
                parents.setdefault(name, group)
    except DefusedXmlException as error:
        raise _not(_XML, "it defines a document type or entities", path) from error
    except (ParseError, ValueError, LookupError) as error:
        raise _not(_XML, f"it is not valid XML ({error})", path) from error
    if elements.root.tag != "ASAP_Annotations":
        raise _not(_XML, f"its root is {_shown(elements.root.tag)}, not ASAP_Annotations", path)
    return drawn, parents


def _in_order(coordinates: Iterable[Element]) -> list[Element]:
    """Coordinates by their places in the outline, where all have one; else as they stand."""
    points = list(coordinates)
    places = [point.get("Order", "") for point in points]
    # Nineteen digits are more than any count; longer ones take long to convert.
    if not all(place.isdecimal() and len(place) < 19 for place in places):
        return points
    return [points[i] for i in np.argsort(np.array(places, np.int64), kind="stable").tolist()]


def _read_json(path: Path) -> _Contents:
    root = read_json(path, what=_JSON, limit_bytes=_MAX_BYTES)
    if not isinstance(root, dict) or not any(_meaning(group, {}) for group in root):
        raise _not(_JSON, 'it has neither "positive" nor "negative"', path)
    drawn: list[_Drawn] = []
    for group, members in root.items():
        for member in members if isinstance(members, list) else [members]:
            vertices = member.get("vertices") if isinstance(member, dict) else None
            if not isinstance(vertices, list):
                number = len(drawn) + 1
                raise _not(_JSON, f"annotation {number} has no list of vertices", path)
            name = member.get("name")
            points = [
                (v[0], v[1]) if isinstance(v, list) and len(v) == 2 else (v, "") for v in vertices
            ]
            drawn.append(_Drawn(name if isinstance(name, str) else "", "Polygon", group, points))
    return drawn, {}


def _area(outline: shapely.Polygon | None, kind: str, notes: Counter[str]) -> MultiPolygon | None:
    """The area that an outline encloses; None, with a note, if it has none or is too tangled."""
    whole = None if outline is None else repaired(outline)
    if outline is not None and whole is None:
        notes[f"outlines left out: they cross themselves more than {MAX_CROSSINGS} times"] += 1
        return None
    area = MultiPolygon() if whole is None else multipolygon(whole)
    if area.is_empty:
        notes[f"annotations of type {_shown(kind)} left out: no area"] += 1
        return None
    if whole is not outline:
        notes["outlines crossed themselves and were repaired"] += 1
    if kind == "Spline":
        notes["splines taken as polygons through their points"] += 1
    return area


def _without_holes(
    tumor: list[TumorOutline], holes: list[MultiPolygon], notes: Counter[str]
) -> list[TumorOutline]:
    kept: list[TumorOutline] = []
    used: set[int] = set()
    tree = shapely.STRtree(holes)
    for name, area in tumor:
        touched = tree.query(area, predicate="intersects").tolist()
        used.update(touched)
        cut = [holes[index] for index in touched]
        rest = multipolygon(area.difference(shapely.union_all(cut))) if cut else area
        if rest.is_empty:
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


def _shown(text: str) -> str:
    """A stranger's text in quotes, not longer than a line."""
    text = well_formed(text)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _not(what: str, why: str, path: Path) -> QprdError:
    return QprdError(f"This is not {what}: {why}.", where=str(path), fix=f"Give {what}.")
