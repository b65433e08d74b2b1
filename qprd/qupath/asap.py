"""Tumor outlines drawn in ASAP: its XML, and the JSON that tools around Camelyon16 made of it.

Groups mean what they do in the Camelyon challenges. The coordinates are level-0 pixels of the whole
file, as OpenSlide counts them, which need not be QuPath's frame (see `qprd.slides.frame`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.files.jsonfile import read_json, well_formed
from qprd.qupath.outlines import MAX_CROSSINGS, repaired

#: Group names, case-folded. ``_0``, ``_1``, ``_2`` and Tumor, Exclusion are Camelyon16's,
#: metastases and normal Camelyon17's, positive and negative those of the JSON files.
TUMOR_GROUPS = frozenset({"_0", "_1", "tumor", "metastasis", "metastases", "positive"})
HOLE_GROUPS = frozenset({"_2", "exclusion", "negative", "normal"})

_MAX_BYTES = 64 * 2**20
_MAX_POINTS = 2_000_000
_CHUNK_BYTES = 2**16
_MOST_LISTED = 5
_MOST_SHOWN = 60
_XML, _JSON = "an annotation file from ASAP", "a JSON file of Camelyon16 annotations"
_ROOT = "ASAP_Annotations"
#: Types that have an area; Dot, PointSet, Measurement and None have none.
_AREAS = ("Polygon", "Spline", "Rectangle")


@dataclass(frozen=True)
class AsapRegion:
    """One annotation of a tumor group.

    Attributes:
        name: What it is called in the file.
        geometry: Polygon or MultiPolygon, valid, not empty, the holes of hole groups cut out;
            level-0 pixels of the file.
    """

    name: str
    geometry: shapely.Polygon | shapely.MultiPolygon


@dataclass(frozen=True)
class AsapAnnotations:
    """What a file says about tumor.

    Attributes:
        tumor: In the file's order; may overlap.
        notes: What was left out or changed, for the user.
    """

    tumor: tuple[AsapRegion, ...]
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
    drawn = _read_json(path) if is_json else _read_xml(path)
    return _assemble(drawn)


@dataclass
class _Outline:
    name: str
    kind: str
    group: str
    points: list[tuple[float, float]] = field(default_factory=list)
    #: Places of the points in the outline, where the file gives them.
    order: list[int] = field(default_factory=list)


@dataclass
class _Drawn:
    """A file's contents, not yet judged."""

    where: str
    outlines: list[_Outline] = field(default_factory=list)
    #: Group to the group it is part of.
    parents: dict[str, str] = field(default_factory=dict)
    points: int = 0

    def add_point(self, outline: _Outline, x: object, y: object) -> None:
        self.points += 1
        if self.points > _MAX_POINTS:
            raise QprdError(
                f"This file has more than {_MAX_POINTS:,} points.",
                where=self.where,
                fix="Split it into several files.",
            )
        try:
            point = float(str(x)), float(str(y))
        except ValueError:
            point = math.nan, math.nan
        if not (math.isfinite(point[0]) and math.isfinite(point[1])):
            raise QprdError(
                f"Annotation {len(self.outlines) + 1} ({_shown(outline.name)}) has a coordinate "
                f"that is not a finite number: {_shown(str(x))}, {_shown(str(y))}.",
                where=self.where,
                fix="Correct it where it was drawn.",
            )
        outline.points.append(point)


class _AsapTarget:
    """Takes an XML parser's events, so that no tree is built."""

    def __init__(self, drawn: _Drawn) -> None:
        self._drawn = drawn
        self._has_root = False
        self._open: _Outline | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._has_root and tag != _ROOT:
            raise _not(_XML, f"its root is {_shown(tag)}, not {_ROOT}", self._drawn.where)
        self._has_root = True
        if tag == "Annotation":
            self._open = _Outline(
                name=attributes.get("Name", ""),
                kind=attributes.get("Type", "None"),
                group=attributes.get("PartOfGroup", "None"),
            )
        elif tag == "Coordinate" and self._open is not None:
            self._drawn.add_point(self._open, attributes.get("X"), attributes.get("Y"))
            place = attributes.get("Order", "")
            # Nineteen digits are more than any count; longer ones take long to convert.
            if place.isdecimal() and len(place) < 19:
                self._open.order.append(int(place))
        elif tag == "Group":
            name = attributes.get("Name", "")
            self._drawn.parents.setdefault(name, attributes.get("PartOfGroup", "None"))

    def end(self, tag: str) -> None:
        if tag == "Annotation" and self._open is not None:
            self._drawn.outlines.append(self._open)
            self._open = None

    def close(self) -> None:
        """Nothing is returned."""


def _read_xml(path: Path) -> _Drawn:
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    drawn = _Drawn(str(path))
    parser = DefusedXMLParser(target=_AsapTarget(drawn), forbid_dtd=True)
    read_bytes = 0
    try:
        if not path.is_file():
            raise QprdError(f"There is no such file ({_XML} is expected).", where=str(path))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                read_bytes += len(chunk)
                if read_bytes > _MAX_BYTES:
                    raise QprdError(
                        f"This is too large to be {_XML}: more than {_MAX_BYTES // 2**20} MiB.",
                        where=str(path),
                    )
                parser.feed(chunk)
        parser.close()
    except OSError as error:
        raise QprdError(f"This file cannot be read: {error.strerror}.", where=str(path)) from error
    except DefusedXmlException as error:
        raise _not(_XML, "it defines a document type or entities", str(path)) from error
    except (ParseError, ValueError, LookupError) as error:
        raise _not(_XML, f"it is not valid XML ({error})", str(path)) from error
    return drawn


def _read_json(path: Path) -> _Drawn:
    root = read_json(path, what=_JSON, limit_bytes=_MAX_BYTES)
    if not isinstance(root, dict) or not any(_meaning(group, {}) for group in root):
        raise _not(_JSON, 'it has neither "positive" nor "negative"', str(path))
    drawn = _Drawn(str(path))
    for group, members in root.items():
        for member in members if isinstance(members, list) else [members]:
            vertices = member.get("vertices") if isinstance(member, dict) else None
            if not isinstance(vertices, list):
                number = len(drawn.outlines) + 1
                raise _not(_JSON, f"annotation {number} has no list of vertices", str(path))
            name = member.get("name")
            outline = _Outline(name if isinstance(name, str) else "", "Polygon", group)
            for vertex in vertices:
                x, y = vertex if isinstance(vertex, list) and len(vertex) == 2 else (vertex, "")
                drawn.add_point(outline, x, y)
            drawn.outlines.append(outline)
    return drawn


def _assemble(drawn: _Drawn) -> AsapAnnotations:
    """Sort outlines by what their groups mean, and cut the holes out of the tumor."""
    notes: list[str] = []
    unknown: Counter[str] = Counter()
    without_area: Counter[str] = Counter()
    tangled = mended = splines = 0
    tumor: list[tuple[str, BaseGeometry]] = []
    holes: list[BaseGeometry] = []
    for outline in drawn.outlines:
        meaning = _meaning(outline.group, drawn.parents)
        if meaning is None:
            unknown[outline.group] += 1
            continue
        polygon = _polygon(outline)
        drawn_area = None if polygon is None else repaired(polygon)
        if polygon is not None and drawn_area is None:
            tangled += 1
            continue
        area = None if drawn_area is None else _areas_of(drawn_area)
        if area is None:
            without_area[outline.kind] += 1
            continue
        mended += drawn_area is not polygon
        splines += outline.kind == "Spline"
        if meaning == "tumor":
            tumor.append((well_formed(outline.name), area))
        else:
            holes.append(area)
    for group, count in unknown.most_common(_MOST_LISTED):
        notes.append(
            f"{count} annotations left out: their group {_shown(group)} means neither tumor "
            "(_0, _1, Tumor, metastasis) nor hole (_2, Exclusion, negative)"
        )
    if len(unknown) > _MOST_LISTED:
        notes.append(f"likewise those of {len(unknown) - _MOST_LISTED} more groups")
    for kind, count in without_area.most_common(_MOST_LISTED):
        notes.append(f"{count} annotations of type {_shown(kind)} left out: no area")
    if splines:
        notes.append(f"{splines} splines taken as polygons through their points")
    if tangled:
        notes.append(
            f"{tangled} outlines left out: they cross themselves more than {MAX_CROSSINGS} times"
        )
    if mended:
        notes.append(f"{mended} outlines crossed themselves and were repaired")
    regions, remarks = _without_holes(tumor, holes)
    return AsapAnnotations(regions, (*notes, *remarks))


def _without_holes(
    tumor: list[tuple[str, BaseGeometry]], holes: list[BaseGeometry]
) -> tuple[tuple[AsapRegion, ...], list[str]]:
    regions: list[AsapRegion] = []
    vanished = 0
    used: set[int] = set()
    tree = shapely.STRtree(holes)
    for name, area in tumor:
        touched = tree.query(area, predicate="intersects").tolist()
        used.update(touched)
        cut = [holes[index] for index in touched]
        rest = _areas_of(area.difference(shapely.union_all(cut)) if cut else area)
        if rest is None:
            vanished += 1
        else:
            regions.append(AsapRegion(name, rest))
    remarks = []
    if vanished:
        remarks.append(f"{vanished} tumor annotations left out: holes cover them")
    if len(used) < len(holes):
        remarks.append(f"{len(holes) - len(used)} holes are in no tumor and change nothing")
    return tuple(regions), remarks


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


def _polygon(outline: _Outline) -> shapely.Polygon | None:
    """The outline as it is drawn, valid or not; None if there is nothing to enclose."""
    points = np.array(outline.points, float).reshape(-1, 2)
    if outline.kind not in _AREAS:
        return None
    if len(outline.order) == len(points):
        points = points[np.argsort(np.array(outline.order, np.int64), kind="stable")]
    if outline.kind == "Rectangle" and len(points) == 2:
        return shapely.box(*points.min(axis=0), *points.max(axis=0))
    return shapely.Polygon(points) if len(points) >= 3 else None


def _areas_of(geometry: BaseGeometry) -> shapely.Polygon | shapely.MultiPolygon | None:
    """The polygons of a geometry; None if there is no area."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    polygons = [part for part in parts if isinstance(part, shapely.Polygon) and part.area > 0]
    if len(polygons) == 1:
        return polygons[0]
    return shapely.MultiPolygon(polygons) if polygons else None


def _shown(text: str) -> str:
    """A stranger's text in quotes, not longer than a line."""
    text = well_formed(text)
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


def _not(what: str, why: str, where: str) -> QprdError:
    return QprdError(f"This is not {what}: {why}.", where=where)
