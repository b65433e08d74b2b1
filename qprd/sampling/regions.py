"""Label regions: which parts of a slide are tumor, which are normal, and which are neither."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.qupath.outlines import MAX_CROSSINGS, repaired, with_nested_holes
from qprd.qupath.project import SCORED_PLANE, Annotation
from qprd.sampling.classes import Role, is_derived, role_of, similar_classes
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

NormalSource = Literal["annotations", "tissue", "none"]

_DEFAULTS = TrainConfig()

#: Distance kept between tumor and the tissue that counts as normal without having been drawn:
#: room for a loosely drawn border and for the infiltrating front beyond it.
MARGIN_UM = _DEFAULTS.margin_um

#: Area (square level-0 pixels) below which an overlap or a clipped edge is rounding, not news.
_NEGLIGIBLE_PX2 = 1.0

#: Annotations named in a line about several.
_NAMES_SHOWN = 5

#: Beyond any image.
_FAR_PX = 1e9

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
        name: What to call this one annotation, where a person has to find it.
    """

    annotation_id: str | None
    class_name: str | None
    reason: str
    area_px2: float = 0.0
    name: str | None = None


@dataclass(frozen=True)
class LabelRegions:
    """Where a slide is tumor and where it is normal, in level-0 pixels of the entry's frame.

    Attributes:
        tumor: Valid and inside the image; may be empty.
        normal: Valid and inside the image; never overlaps ``tumor``.
        dropped: What was left out or changed, and why.
        normal_source: Where ``normal`` comes from.
        ignored: What ignored classes cut out of both.
        accepted: The part of ``tumor`` that a person accepted when reviewing predictions.
        rejected: What a person rejected; part of ``normal`` wherever that has a source.
        unlabeled: What is drawn with a class that means neither, or without one; outlines of areas
            are no part of it.
        areas: What a person outlined as looked at (``Region*``); empty if nothing is.
    """

    tumor: MultiPolygon
    normal: MultiPolygon
    dropped: tuple[Dropped, ...]
    normal_source: NormalSource
    ignored: MultiPolygon = field(default_factory=MultiPolygon)
    accepted: MultiPolygon = field(default_factory=MultiPolygon)
    rejected: MultiPolygon = field(default_factory=MultiPolygon)
    unlabeled: MultiPolygon = field(default_factory=MultiPolygon)
    areas: MultiPolygon = field(default_factory=MultiPolygon)

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
            key = (class_name, reason)
            names = [d.name for d in self.dropped if d.name and (d.class_name, d.reason) == key]
            which = f": {', '.join(names[:_NAMES_SHOWN])}{', ...' * (len(names) > _NAMES_SHOWN)}"
            of_class = f"{class_name}: " if class_name else ""
            lines.append(f"{of_class}{times}{reason}{size}{which if names else ''}")
        return lines


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
    least ``margin_um`` from anything marked as tumor and from whatever else is drawn with another
    class or none, provided that the slide has a tumor polygon or is declared normal; where areas
    are outlined (``Region*``), only the tissue inside them. An annotation of another class around
    something labeled outlines an area, too, and keeps nothing away. Ignored classes are cut out of
    both.

    What qprd predicted is neither, until a person gives it a class: an accepted contour is tumor as
    drawn; a rejected one is normal, beside the tissue that counts as normal and not instead of it.

    Args:
        annotations: All annotations of the slide, as drawn.
        width: Width of the image in level-0 pixels.
        height: Height of the image in level-0 pixels.
        mpp: Micrometers per level-0 pixel.
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
        raise QprdError(
            f"The class {both[0]!r} cannot be both tumor and normal.",
            fix="Change --tumor-class or --normal-class.",
        )

    drawn = _collect(annotations, box(0, 0, width, height), tumor_classes, normal_classes)
    dropped = drawn.dropped
    unlabeled = _unlabeled(drawn, [*tumor_classes, *normal_classes])
    if unlabeled.annotations:
        note = unlabeled_note(unlabeled.annotations, tumor_classes, normal_classes)
        area = sum(geometry.area for geometry in unlabeled.geometries)
        dropped.append(Dropped(None, None, note, area))
    tumor_name, normal_name = tumor_classes[0], normal_classes[0]
    tumor: BaseGeometry = drawn.union("tumor")
    normal: BaseGeometry = MultiPolygon()
    source: NormalSource = "none"
    has_tumor = bool(drawn.parts["tumor"]) or unannotated_normal
    from_tissue = has_tumor and not drawn.lost_tumor
    if drawn.parts["normal"] or (drawn.parts["rejected"] and not from_tissue):
        source = "annotations"
        normal = shapely.union(drawn.union("normal"), drawn.union("rejected"))
        overlap = shapely.intersection(normal, tumor).area
        if overlap >= _NEGLIGIBLE_PX2:
            reason = f"overlaps {tumor_name}, which wins"
            dropped.append(Dropped(None, normal_name, reason, overlap))
        normal = shapely.difference(normal, tumor)
    elif not from_tissue:
        dropped.append(drawn.why_not_from_tissue(tumor_name, normal_name))
    elif tissue is None:
        reason = "none drawn, and no tissue mask to fall back on"
        dropped.append(Dropped(None, normal_name, reason))
    else:
        source = "tissue"
        # Tumor marked by a point or a line teaches nothing, but is no place for normal either.
        marked = [*_polygons(tumor), *drawn.unusable_tumor, *unlabeled.geometries]
        inside = shapely.intersection(tissue.to_polygons(), box(0, 0, width, height))
        if drawn.parts["area"]:
            inside = shapely.intersection(inside, drawn.union("area"))
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
        unlabeled=_multipolygon(shapely.disjoint_subset_union_all(unlabeled.geometries)),
        areas=_multipolygon(drawn.union("area")),
    )


def unlabeled_annotations(
    annotations: Sequence[Annotation], tumor_classes: Sequence[str], normal_classes: Sequence[str]
) -> Sequence[Annotation]:
    """The annotations that mean neither tumor nor normal and outline no area, see `label_regions`.

    Points and lines are among them.
    """
    everywhere = box(-_FAR_PX, -_FAR_PX, _FAR_PX, _FAR_PX)
    drawn = _collect(annotations, everywhere, tumor_classes, normal_classes)
    return _unlabeled(drawn, [*tumor_classes, *normal_classes]).annotations


def unlabeled_note(
    annotations: Sequence[Annotation], tumor_classes: Sequence[str], normal_classes: Sequence[str]
) -> str:
    """Say how many annotations of which classes are used as neither tumor nor normal.

    Args:
        annotations: At least one; none of a tumor, normal or ignored class.
        tumor_classes: Names of tumor classes.
        normal_classes: Names of normal classes.

    Examples:
        >>> from shapely import Point
        >>> drawn = [Annotation("a", Point(0, 0), "tumor"), Annotation("b", Point(0, 0), None)]
        >>> unlabeled_note(drawn, ["Tumor"], ["Normal"])
        "1 annotation of class 'tumor' and 1 without a class are used as neither Tumor nor Normal; \
did you mean 'Tumor'?"
    """
    counts = Counter(annotation.class_name for annotation in annotations)
    parts = [
        f"{count} of class {name!r}" if name else f"{count} without a class"
        for name, count in counts.most_common()
    ]
    parts[0] = parts[0].replace(" ", f" annotation{'s' * (counts.most_common(1)[0][1] > 1)} ", 1)
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    is_are = "is" if len(annotations) == 1 else "are"
    wanted = [*tumor_classes, *normal_classes]
    meant = [
        name for name in wanted if similar_classes([name], [c for c in counts if c is not None])
    ]
    hint = f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    return f"{listed} {is_are} used as neither {tumor_classes[0]} nor {normal_classes[0]}{hint}"


@dataclass(frozen=True)
class _Unlabeled:
    """What is drawn, but neither labeled nor the outline of an area."""

    annotations: Sequence[Annotation]
    geometries: Sequence[BaseGeometry]


#: Share of a labeled polygon that lies inside the outline of its area, freehand as both are drawn.
_COVERED = 0.99


def _unlabeled(drawn: _Drawn, classes: Sequence[str]) -> _Unlabeled:
    """Part what means neither tumor nor normal from what outlines an area around labels.

    A class that somebody may have misspelled is never taken for an outline.
    """
    labels = np.array([*drawn.parts["tumor"], *drawn.parts["normal"]], dtype=object)
    tree = shapely.STRtree(labels)
    annotations: list[Annotation] = []
    geometries: list[BaseGeometry] = []
    for annotation, parts in drawn.others:
        own = annotation.class_name
        misspelled = own is not None and similar_classes(classes, [own])
        if not misspelled and any(_covers_a_label(part, tree) for part in parts):
            continue
        annotations.append(annotation)
        geometries.extend(parts)
    return _Unlabeled(annotations, geometries)


def _covers_a_label(part: BaseGeometry, tree: shapely.STRtree) -> bool:
    if part.geom_type != "Polygon":
        return False
    labels = tree.geometries[tree.query(part, predicate="intersects")]
    inside = shapely.area(shapely.intersection(labels, part))
    return bool((inside >= _COVERED * shapely.area(labels)).any())


@dataclass
class _Drawn:
    """The usable polygons of a slide by what they are for, and what was not usable."""

    parts: dict[Role, list[BaseGeometry]] = field(
        default_factory=lambda: {role: [] for role in get_args(Role)}
    )
    accepted: list[BaseGeometry] = field(default_factory=list)
    unusable_tumor: list[BaseGeometry] = field(default_factory=list)
    others: list[tuple[Annotation, Sequence[BaseGeometry]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def lost_tumor(self) -> bool:
        """Whether tumor is drawn at a place that is not known: then any tissue may be tumor."""
        return any(geometry.is_empty for geometry in self.unusable_tumor)

    def why_not_from_tissue(self, tumor_name: str, normal_name: str) -> Dropped:
        """Say why the tissue of a slide does not count as normal."""
        if self.unusable_tumor:
            what = "the place of one is not known" if self.lost_tumor else "no polygon of it"
            reason = f"{what}, so its tissue is not taken as normal either"
            return Dropped(None, tumor_name, reason)
        reason = f"neither {tumor_name} nor {normal_name} drawn: probably not annotated yet"
        return Dropped(None, None, reason)

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
        if annotation.plane != SCORED_PLANE:
            if role != "other":
                z, t = annotation.plane
                reason = f"drawn on another plane (z {z}, t {t}) than the one that is scored"
                drawn.dropped.append(Dropped(annotation.id, annotation.class_name, reason))
            continue
        if role == "other":
            geometry = annotation.geometry
            polygons = _clean(annotation, image, drawn.dropped if annotation.fault else [])
            if polygons or (not geometry.is_empty and _is_finite(geometry)):
                drawn.others.append((annotation, polygons or [shapely.force_2d(geometry)]))
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
    if annotation.fault is not None:
        reason = f"left out, as {annotation.fault}; draw it again or delete it"
        called = annotation.name or annotation.id
        remarks.append(
            Dropped(annotation.id, annotation.class_name or "no class", reason, name=called)
        )
        return []
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
        mended = [repaired(g) for g in polygonal]
        polygonal = [p for g in mended if g is not None for p in _polygons(g)]
        if None in mended:
            remark(f"invalid outline that crosses itself more than {MAX_CROSSINGS} times")
        else:
            remark("invalid outline: repaired" if polygonal else "invalid outline without an area")
    if geometry.geom_type == "MultiPolygon":
        polygonal, holes = with_nested_holes(polygonal)
        if holes:
            remark("polygons inside another one of the same annotation: taken as holes")
    return _clipped(polygonal, image, remark)


def _clipped(
    polygonal: Sequence[BaseGeometry], image: BaseGeometry, remark: Callable[[str, float], None]
) -> list[BaseGeometry]:
    """The parts of valid polygons inside the image."""
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
    wide = _buffered(outlines, margin_px + tolerance)
    return shapely.disjoint_subset_union_all([*areas, *wide])


def _buffered(outlines: NDArray[np.object_], distance_px: float) -> NDArray[np.object_]:
    """Buffer lines and points, nowhere by less than the distance.

    GEOS loses parts of the buffers of some lines that touch themselves; these are buffered segment
    by segment.
    """

    def buffer(lines: NDArray[np.object_]) -> NDArray[np.object_]:
        wide = shapely.buffer(lines, distance_px * _OUTSIDE_ARC, quad_segs=_QUAD_SEGS)
        return np.asarray(wide, dtype=object)

    wide = buffer(outlines)
    for index in np.flatnonzero(shapely.distance(shapely.boundary(wide), outlines) < distance_px):
        segments = [
            shapely.linestrings(np.stack([xy[:-1], xy[1:]], axis=1))
            for xy in map(shapely.get_coordinates, _leaves(outlines[index]))
        ]
        wide[index] = shapely.union_all(buffer(np.concatenate(segments)))
    return wide


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
