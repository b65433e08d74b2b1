"""Label regions: which parts of a slide are tumor, which are normal, and which are neither."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.predictions import class_parts, is_own_class
from qprd.qupath.outlines import MAX_CROSSINGS, repaired
from qprd.qupath.project import Annotation
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

NormalSource = Literal["annotations", "tissue", "none"]
Role = Literal["tumor", "normal", "rejected", "ignored", "pending"]

_DEFAULTS = TrainConfig()

#: Distance kept between tumor and the tissue that counts as normal without having been drawn:
#: room for a loosely drawn border and for the infiltrating front beyond it.
MARGIN_UM = _DEFAULTS.margin_um

#: Area (square level-0 pixels) below which an overlap or a clipped edge is rounding, not news.
_NEGLIGIBLE_PX2 = 1.0

#: GEOS draws an arc as chords, none over more than 1.5 of the angle that it is asked for. Buffers
#: that are wider by this factor have their chords outside the true arc.
_QUAD_SEGS = 8
_OUTSIDE_ARC = 1 / math.cos(0.75 * math.pi / (2 * _QUAD_SEGS)) + 1e-4


@dataclass(frozen=True)
class Dropped:
    """Something drawn that was not used, or not used as drawn.

    Attributes:
        annotation_id: Id of the annotation; None where the remark concerns a whole class.
        class_name: Its class.
        reason: Why, in words.
        area_px2: Area that was lost, in square level-0 pixels.
    """

    annotation_id: str | None
    class_name: str | None
    reason: str
    area_px2: float = 0.0


@dataclass(frozen=True)
class LabelRegions:
    """Where a slide is tumor and where it is normal, in level-0 pixels of the entry's frame.

    Attributes:
        tumor: Valid and inside the image; may be empty.
        normal: Likewise; never overlaps ``tumor``.
        dropped: What was left out or changed, and why.
        normal_source: Where ``normal`` comes from.
        ignored: What ignored classes cut out of both.
        accepted: The part of ``tumor`` that a person accepted when reviewing predictions.
        rejected: What a person rejected; part of ``normal`` wherever that has a source.
    """

    tumor: MultiPolygon
    normal: MultiPolygon
    dropped: tuple[Dropped, ...]
    normal_source: NormalSource
    ignored: MultiPolygon = field(default_factory=MultiPolygon)
    accepted: MultiPolygon = field(default_factory=MultiPolygon)
    rejected: MultiPolygon = field(default_factory=MultiPolygon)

    def summary(self) -> list[str]:
        """One line per class and reason, most frequent first."""
        counts = Counter((d.class_name, d.reason) for d in self.dropped)
        areas: dict[tuple[str | None, str], float] = {}
        for d in self.dropped:
            key = (d.class_name, d.reason)
            areas[key] = areas.get(key, 0.0) + d.area_px2
        lines = []
        for (class_name, reason), count in counts.most_common():
            times = f"{count} x " if count > 1 else ""
            area = areas[class_name, reason]
            size = f" ({area:,.0f} px²)" if area >= _NEGLIGIBLE_PX2 else ""
            lines.append(f"{class_name or 'slide'}: {times}{reason}{size}")
        return lines


def is_ignored_class(class_name: str | None) -> bool:
    """True for what QuPath ignores: the last component of the name ends in ``*``."""
    return class_name is not None and class_parts(class_name)[-1].endswith("*")


def is_derived(class_name: str | None, bases: Sequence[str]) -> bool:
    """True if a class is one of ``bases`` or derived from one (case matters, as in QuPath)."""
    if class_name is None:
        return False
    parts = class_parts(class_name)
    return any(parts[: len(base)] == base for base in map(class_parts, bases))


def check_classes(wanted: Sequence[str], existing: Mapping[str, int]) -> None:
    """Check that a wanted class, or one derived from it, has annotations.

    Args:
        wanted: Class names, e.g. the tumor classes; one that exists is enough.
        existing: Annotations per class name over all slides.

    Raises:
        QprdError: None of them has an annotation, or QuPath ignores a wanted class.
    """
    for name in wanted:
        if is_ignored_class(name):
            raise QprdError(
                f"QuPath ignores classes whose name ends in '*', so {name!r} cannot be learned",
                fix="give these annotations a class without '*' in QuPath",
            )
    usable = {
        name: count
        for name, count in existing.items()
        if count > 0 and not is_ignored_class(name) and not is_own_class(name)
    }
    if any(is_derived(name, wanted) for name in usable):
        return
    names = " or ".join(repr(name) for name in wanted)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(existing.items()) if count > 0)
    found = f"; annotations exist of: {listed}" if listed else "; there are no annotations at all"
    close = _close_matches(wanted, usable)
    if close:
        fix = f"did you mean {' or '.join(repr(name) for name in close)}? (case matters)"
    elif usable:
        fix = "name the class that you drew, or draw that class in QuPath"
    else:
        fix = "draw and classify annotations in QuPath, and save the project"
    raise QprdError(f"no annotation of class {names}{found}", fix=fix)


def _close_matches(wanted: Sequence[str], existing: Mapping[str, int]) -> list[str]:
    by_folded = {name.casefold(): name for name in sorted(existing)}
    close: dict[str, None] = {}
    for name in wanted:
        for match in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6):
            close[by_folded[match]] = None
    return list(close)


def role_of(
    annotation: Annotation, tumor_classes: Sequence[str], normal_classes: Sequence[str]
) -> Role | None:
    """What an annotation says of its tissue: ``rejected`` is normal that qprd took for tumor.

    None for classes that mean neither; ``pending`` is what qprd predicted and nobody judged.
    """
    class_name = annotation.class_name
    if is_own_class(class_name):
        return "pending"
    if is_ignored_class(class_name):
        return "ignored"
    if is_derived(class_name, tumor_classes):
        return "tumor"
    if is_derived(class_name, normal_classes):
        return "rejected" if annotation.predicted else "normal"
    return None


def label_regions(
    annotations: Sequence[Annotation],
    width: int,
    height: int,
    *,
    mpp: float,
    tissue: TissueMask | None = None,
    tumor_classes: Sequence[str] = _DEFAULTS.tumor_class,
    normal_classes: Sequence[str] = _DEFAULTS.normal_class,
    margin_um: float = MARGIN_UM,
    unannotated_normal: bool = False,
) -> LabelRegions:
    """Turn the annotations of one slide into a tumor and a normal region.

    Tumor is the union of the tumor classes and their derived classes, normal that of the normal
    classes; tumor wins where they overlap. Without drawn normal polygons, normal is the tissue at
    least ``margin_um`` from anything marked as tumor, provided that the slide has a tumor polygon
    or is declared normal. Ignored classes are cut out of both.

    What qprd predicted is neither, until a person gives it a class: an accepted contour is tumor as
    drawn; a rejected one is normal, beside the tissue that counts as normal and not instead of it.

    Args:
        annotations: All annotations of the slide, as drawn.
        width: Width of the image in level-0 pixels.
        height: Height likewise.
        mpp: Micrometres per level-0 pixel.
        tissue: Tissue mask; without one, normal comes from normal polygons only.
        tumor_classes: Names of tumor classes.
        normal_classes: Names of normal classes.
        margin_um: Distance from tumor of undrawn normal tissue.
        unannotated_normal: The slide is known to hold no tumor but what is drawn.

    Returns:
        Both regions, clipped to the image, and what was dropped.

    Raises:
        QprdError: The same class is wanted as tumor and as normal.
    """
    both = [name for name in tumor_classes if is_derived(name, normal_classes)]
    both += [name for name in normal_classes if is_derived(name, tumor_classes)]
    if both:
        raise QprdError(f"class {both[0]!r} cannot be both tumor and normal")

    drawn = _collect(annotations, box(0, 0, width, height), tumor_classes, normal_classes)
    dropped = drawn.dropped
    tumor_name, normal_name = tumor_classes[0], normal_classes[0]
    tumor: BaseGeometry = drawn.union("tumor")
    normal: BaseGeometry = MultiPolygon()
    source: NormalSource = "none"
    from_tissue = bool(drawn.parts["tumor"]) or unannotated_normal
    if drawn.parts["normal"] or (drawn.parts["rejected"] and not from_tissue):
        source = "annotations"
        normal = shapely.union(drawn.union("normal"), drawn.union("rejected"))
        overlap = shapely.intersection(normal, tumor).area
        if overlap >= _NEGLIGIBLE_PX2:
            reason = f"overlaps {tumor_name}, which wins"
            dropped.append(Dropped(None, normal_name, reason, overlap))
        normal = shapely.difference(normal, tumor)
    elif not from_tissue:
        if drawn.unusable_tumor:
            reason = "no polygon of it, so its tissue is not taken as normal either"
            dropped.append(Dropped(None, tumor_name, reason))
        else:
            reason = f"neither {tumor_name} nor {normal_name} drawn: probably not annotated yet"
            dropped.append(Dropped(None, None, reason))
    elif tissue is None:
        reason = "none drawn, and no tissue mask to fall back on"
        dropped.append(Dropped(None, normal_name, reason))
    else:
        source = "tissue"
        # Tumor marked by a point or a line teaches nothing, but is no place for normal either.
        marked = [*_polygons(tumor), *drawn.unusable_tumor]
        inside = shapely.intersection(tissue.to_polygons(), box(0, 0, width, height))
        undrawn = shapely.difference(inside, _surroundings(marked, margin_um / mpp))
        undrawn = shapely.difference(undrawn, drawn.union("pending"))
        normal = shapely.union(undrawn, shapely.difference(drawn.union("rejected"), tumor))

    ignored = drawn.union("ignored")
    for name, region in ((tumor_name, tumor), (normal_name, normal)):
        lost = shapely.intersection(region, ignored).area
        if lost >= _NEGLIGIBLE_PX2:
            reason = f"cut out by an ignored class ({lost / region.area:.0%} of it)"
            dropped.append(Dropped(None, name, reason, lost))
    rejected = shapely.difference(drawn.union("rejected"), tumor)
    return LabelRegions(
        _multipolygon(shapely.difference(tumor, ignored)),
        _multipolygon(shapely.difference(normal, ignored)),
        tuple(dropped),
        source,
        _multipolygon(ignored),
        accepted=_multipolygon(shapely.difference(shapely.union_all(drawn.accepted), ignored)),
        rejected=_multipolygon(shapely.difference(rejected, ignored)),
    )


@dataclass
class _Drawn:
    """The usable polygons of a slide by what they are for, and what was not usable."""

    parts: dict[Role, list[BaseGeometry]] = field(
        default_factory=lambda: {role: [] for role in get_args(Role)}
    )
    accepted: list[BaseGeometry] = field(default_factory=list)
    unusable_tumor: list[BaseGeometry] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def union(self, role: Role) -> BaseGeometry:
        # Most annotations touch no other: joining only those that do is many times faster.
        return shapely.disjoint_subset_union_all(self.parts[role])


def _collect(
    annotations: Sequence[Annotation],
    image: BaseGeometry,
    tumor_classes: Sequence[str],
    normal_classes: Sequence[str],
) -> _Drawn:
    drawn = _Drawn()
    for annotation in annotations:
        role = role_of(annotation, tumor_classes, normal_classes)
        if role is None:
            continue
        polygons = _clean(annotation, image, drawn.dropped)
        drawn.parts[role].extend(polygons)
        if role == "tumor" and annotation.predicted:
            drawn.accepted.extend(polygons)
        if role == "tumor" and not polygons and _is_finite(annotation.geometry):
            drawn.unusable_tumor.append(shapely.force_2d(annotation.geometry))
    return drawn


def _clean(
    annotation: Annotation, image: BaseGeometry, remarks: list[Dropped]
) -> list[BaseGeometry]:
    """Valid polygons of one annotation inside the image; says in ``remarks`` what was lost."""

    def remark(reason: str, area: float = 0.0) -> None:
        remarks.append(Dropped(annotation.id, annotation.class_name, reason, area))

    geometry = annotation.geometry
    if geometry.is_empty:
        remark("empty")
        return []
    if not _is_finite(geometry):
        remark("coordinates that are not numbers")
        return []
    geometry = shapely.force_2d(geometry)
    polygonal = _polygons(geometry)
    if not polygonal:
        remark("a point or a line, not an area")
        return []
    if len(polygonal) < len(_leaves(geometry)):
        remark("points or lines beside its areas")
    if not all(shapely.is_valid(polygonal)):
        drawn = polygonal
        mended = [repaired(g) for g in drawn]
        polygonal = [p for g in mended if g is not None for p in _polygons(g)]
        if None in mended:
            remark(f"invalid outline that crosses itself more than {MAX_CROSSINGS} times")
        else:
            remark("invalid outline: repaired" if polygonal else "invalid outline without an area")
    clipped: list[BaseGeometry] = []
    outside = 0.0
    for polygon in polygonal:
        if shapely.covers(image, polygon):
            clipped.append(polygon)
            continue
        inside = _polygons(shapely.intersection(polygon, image))
        outside += polygon.area - sum(p.area for p in inside)
        clipped.extend(inside)
    if polygonal and not clipped:
        remark("outside the image", outside)
    elif outside >= _NEGLIGIBLE_PX2:
        remark("partly outside the image: clipped", outside)
    return clipped


def _surroundings(geometries: Sequence[BaseGeometry], margin_px: float) -> BaseGeometry:
    """Return what lies within a margin of geometries, and up to a quarter of the margin beyond."""
    # Buffering every vertex of a freehand outline takes minutes and changes nothing. Outlines are
    # simplified as lines, of which GEOS keeps both ends; it may move the start of a ring by more
    # than the tolerance.
    tolerance = margin_px / 10
    leaves = np.array([leaf for geometry in geometries for leaf in _leaves(geometry)], dtype=object)
    areas = np.where(shapely.is_valid(leaves), leaves, shapely.convex_hull(leaves))
    outlines = np.where(shapely.get_dimensions(areas) == 2, shapely.boundary(areas), areas)
    with np.errstate(over="ignore"):  # GEOS raises this flag on outlines that it handles well
        outlines = shapely.simplify(outlines, tolerance, preserve_topology=False)
    wide = shapely.buffer(outlines, (margin_px + tolerance) * _OUTSIDE_ARC, quad_segs=_QUAD_SEGS)
    return shapely.disjoint_subset_union_all([*areas, *wide])


def _is_finite(geometry: BaseGeometry) -> bool:
    return bool(np.isfinite(shapely.get_coordinates(geometry)).all())


def _leaves(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The parts of a geometry that are not empty, collections of collections taken apart."""
    if hasattr(geometry, "geoms"):
        return [leaf for part in geometry.geoms for leaf in _leaves(part)]
    return [] if geometry.is_empty else [geometry]


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    return [leaf for leaf in _leaves(geometry) if leaf.geom_type == "Polygon"]


def _multipolygon(geometry: BaseGeometry) -> MultiPolygon:
    polygons = [p for p in _polygons(geometry) if p.area > 0]
    # Sorted, so that the same regions drawn in another order are the same MultiPolygon.
    return shapely.normalize(MultiPolygon(polygons))
