"""Annotations of a slide, cleaned, clipped to the image, and sorted by what they are for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import shapely
from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from qprd.qupath.outlines import MAX_CROSSINGS, repaired, with_nested_holes
from qprd.qupath.project import SCORED_PLANE, Annotation
from qprd.sampling.classes import Classes, Role, role_of, similar_classes
from qprd.shapes import is_finite, leaves, multipolygon, polygons_of

#: Area (square level-0 pixels) below which an overlap or a clipped edge is rounding, not news.
NEGLIGIBLE_PX2 = 1.0

#: More than any image.
_EVERYWHERE = box(-1e9, -1e9, 1e9, 1e9)

#: Annotations named in a line about several.
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Dropped:
    """Something drawn that was not used, or not used as drawn.

    Attributes:
        reason: What was done with it and why, a sentence without its full stop.
        name: What to call this one annotation, where a person has to find it.
    """

    class_name: str | None
    reason: str
    area_px2: float = 0.0
    name: str | None = None


def summarized(dropped: Iterable[Dropped]) -> list[str]:
    """One line per class and reason, most frequent first."""
    groups: dict[tuple[str | None, str], list[Dropped]] = defaultdict(list)
    for one in dropped:
        groups[one.class_name, one.reason].append(one)
    lines = []
    for (class_name, reason), members in sorted(groups.items(), key=lambda g: -len(g[1])):
        details = [f"{len(members)} times"] if len(members) > 1 else []
        area = sum(one.area_px2 for one in members)
        if area >= NEGLIGIBLE_PX2:
            details.append(f"{area:,.0f} px²")
        names = [one.name for one in members if one.name]
        details += [*names[:_NAMES_SHOWN], *["..."] * (len(names) > _NAMES_SHOWN)]
        of_class = f"{class_name}: " if class_name else ""
        lines.append(f"{of_class}{reason}" + f" ({', '.join(details)})" * bool(details) + ".")
    return lines


def _by_role() -> dict[Role, list[BaseGeometry]]:
    return {role: [] for role in get_args(Role)}


@dataclass
class Drawn:
    """The usable polygons of a slide by what they are for, and what was not usable.

    Attributes:
        unusable: What is known of the places of annotations without a usable polygon, by what they
            are for; an empty geometry where that is nothing.
    """

    parts: dict[Role, list[BaseGeometry]] = field(default_factory=_by_role)
    unusable: dict[Role, list[BaseGeometry]] = field(default_factory=_by_role)
    accepted: list[BaseGeometry] = field(default_factory=list)
    others: list[tuple[Annotation, Sequence[BaseGeometry]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def why_not_from_tissue(
        self, tumor_name: str, normal_name: str, *, is_declared: bool
    ) -> Dropped | None:
        """Say why the tissue of a slide does not count as normal; None if it does.

        ``is_declared``: a slide without annotations counts as normal.
        """
        none_usable = {r: bool(self.unusable[r]) and not self.parts[r] for r in self.parts}
        if any(geometry.is_empty for geometry in self.unusable["tumor"]):
            # Then any tissue may be tumor.
            name, what = tumor_name, "The place of one is not known"
        elif none_usable["tumor"]:
            name, what = tumor_name, "No polygon of it is usable"
        elif none_usable["area"]:
            name, what = "Region*", "No outline of what was looked at is usable"
        elif none_usable["normal"]:
            name, what = normal_name, "No outline of it is usable"
        elif self.parts["tumor"] or is_declared:
            return None
        else:
            neither = f"Neither {tumor_name} nor {normal_name} is drawn"
            return Dropped(None, f"{neither}; it is probably not annotated yet")
        return Dropped(name, f"{what}, so the tissue of the slide is not taken as normal either")

    def union(self, role: Role) -> BaseGeometry:
        """All polygons of a role as one region."""
        # Most annotations touch no other: joining only those that do is many times faster.
        return shapely.disjoint_subset_union_all(self.parts[role])


def collect(annotations: Sequence[Annotation], image: BaseGeometry, classes: Classes) -> Drawn:
    """Clean the annotations of a slide, and sort them by their role.

    What was lost is among the remarks, but for what means neither tumor nor normal.
    """
    drawn = Drawn()
    for annotation in annotations:
        role = role_of(annotation, classes)
        geometry = annotation.geometry
        place = shapely.force_2d(geometry) if is_finite(geometry) else Point()
        if annotation.plane != SCORED_PLANE:
            if role != "other":
                z, t = annotation.plane
                reason = f"An annotation is on the plane z {z}, t {t}, which is not scored"
                drawn.dropped.append(Dropped(annotation.class_name, reason))
                drawn.unusable[role].append(place)
            continue
        if role == "other":
            polygons = _clean(annotation, image, drawn.dropped if annotation.fault else [])
            if polygons or not place.is_empty:
                drawn.others.append((annotation, polygons or [place]))
            continue
        polygons = _clean(annotation, image, drawn.dropped)
        drawn.parts[role].extend(polygons)
        if role == "tumor" and annotation.predicted:
            drawn.accepted.extend(polygons)
        # A point or a line of another class than tumor is no outline that was lost.
        is_lost = role == "tumor" or annotation.fault or polygons_of(geometry)
        if not polygons and is_lost:
            drawn.unusable[role].append(place)
    return drawn


def _clean(
    annotation: Annotation, image: BaseGeometry, remarks: list[Dropped]
) -> list[BaseGeometry]:
    """Valid polygons of one annotation inside the image; says in ``remarks`` what was lost."""

    def remark(reason: str, area: float = 0.0) -> None:
        remarks.append(Dropped(annotation.class_name, reason, area))

    geometry = annotation.geometry
    if annotation.fault is not None:
        reason = f"An annotation is left out, as {annotation.fault}; draw it again or delete it"
        called = annotation.name or annotation.id
        remarks.append(Dropped(annotation.class_name or "no class", reason, name=called))
        return []
    if geometry.is_empty:
        remark("An annotation is left out, as it has no outline")
        return []
    if not is_finite(geometry):
        remark("An annotation is left out, as its coordinates are not numbers")
        return []
    geometry = shapely.force_2d(geometry)
    polygonal = polygons_of(geometry)
    if not polygonal:
        remark("An annotation is left out, as a point or a line has no area")
        return []
    if len(polygonal) < len(leaves(geometry)):
        remark("Points or lines beside areas are left out")
    if not all(shapely.is_valid(polygonal)):
        mended = [repaired(g) for g in polygonal]
        polygonal = [p for g in mended if g is not None for p in polygons_of(g)]
        if None in mended:
            remark(f"An outline that crosses itself more than {MAX_CROSSINGS} times is left out")
        else:
            remark(
                "An outline that crosses itself is repaired"
                if polygonal
                else "An outline without an area is left out"
            )
    if geometry.geom_type == "MultiPolygon":
        polygonal, holes = with_nested_holes(polygonal)
        if holes:
            remark("Polygons inside another one of the same annotation are taken for holes")
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
        inside = polygons_of(shapely.intersection(polygon, image))
        outside += polygon.area - sum(p.area for p in inside)
        clipped.extend(inside)
    if polygonal and not clipped:
        remark("An annotation is left out, as it is outside the image", outside)
    elif outside >= NEGLIGIBLE_PX2:
        remark("An annotation is clipped at the edge of the image", outside)
    return clipped


#: Share of a labeled polygon that lies inside the outline of its area, freehand as both are drawn.
_COVERED = 0.99


def unlabeled_of(drawn: Drawn, classes: Classes) -> tuple[list[Annotation], list[BaseGeometry]]:
    """Part what means neither tumor nor normal from what outlines an area around labels.

    A class that somebody may have misspelled is never taken for an outline.

    Returns:
        The former: the annotations and their parts.
    """
    labels = np.array([*drawn.parts["tumor"], *drawn.parts["normal"]], dtype=object)
    tree = shapely.STRtree(labels)
    annotations: list[Annotation] = []
    geometries: list[BaseGeometry] = []
    for annotation, parts in drawn.others:
        own = annotation.class_name
        misspelled = own is not None and similar_classes(classes.labels, [own])
        if not misspelled and any(_covers_a_label(part, tree) for part in parts):
            continue
        annotations.append(annotation)
        geometries.extend(parts)
    return annotations, geometries


def _covers_a_label(part: BaseGeometry, tree: shapely.STRtree) -> bool:
    if part.geom_type != "Polygon":
        return False
    labels = tree.geometries[tree.query(part, predicate="intersects")]
    inside = shapely.area(shapely.intersection(labels, part))
    return bool((inside >= _COVERED * shapely.area(labels)).any())


def drawn_tissue(
    annotations: Sequence[Annotation], width: int, height: int, tissue_classes: Sequence[str]
) -> tuple[BaseGeometry, list[Dropped]]:
    """Find what is drawn as tissue.

    Returns:
        The region in level-0 pixels, clipped to the image, empty if nothing is drawn; and what of
        the annotations was not used, or not as drawn.
    """
    classes = Classes((), (), tissue_classes)
    outlines = [a for a in annotations if role_of(a, classes) == "tissue"]
    drawn = collect(outlines, _EVERYWHERE, classes)
    # An outline of tissue may well reach beyond the image.
    inside = shapely.intersection(drawn.union("tissue"), box(0, 0, width, height))
    return multipolygon(inside), drawn.dropped


def unlabeled_annotations(
    annotations: Sequence[Annotation], classes: Classes
) -> Sequence[Annotation]:
    """The annotations that mean neither tumor nor normal and outline no area, see `label_regions`.

    Points and lines are among them.
    """
    if all(role_of(annotation, classes) != "other" for annotation in annotations):
        return ()
    return unlabeled_of(collect(annotations, _EVERYWHERE, classes), classes)[0]


def unlabeled_note(annotations: Sequence[Annotation], classes: Classes) -> str:
    """Say how many annotations of which classes are used as neither tumor nor normal.

    Examples:
        >>> from shapely import Point
        >>> drawn = [Annotation("a", Point(0, 0), "tumor"), Annotation("b", Point(0, 0), None)]
        >>> unlabeled_note(drawn, Classes(["Tumor"], ["Normal"]))
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
    meant = [
        name
        for name in classes.labels
        if similar_classes([name], [c for c in counts if c is not None])
    ]
    hint = f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    return f"{listed} {is_are} used as neither {classes.tumor[0]} nor {classes.normal[0]}{hint}"
