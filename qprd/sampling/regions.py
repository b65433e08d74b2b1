"""Label regions: which parts of a slide are tumor, which are normal, and which are neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import shapely
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from qprd.qupath.project import Annotation
from qprd.sampling.classes import Classes, role_of
from qprd.sampling.drawn import (
    NEGLIGIBLE_PX2,
    Dropped,
    collect,
    summarized,
    unlabeled_note,
    unlabeled_of,
)
from qprd.sampling.surroundings import surroundings
from qprd.settings import TrainConfig
from qprd.shapes import multipolygon, polygons_of

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

NormalSource = Literal["annotations", "tissue", "none"]

_DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class LabelRegions:
    """Where a slide is tumor and where it is normal, in level-0 pixels of the entry's frame.

    Attributes:
        tumor_region: Valid and inside the image; may be empty.
        normal_region: Valid and inside the image; never overlaps tumor.
        ignored: What ignored classes cut out of both.
        accepted: The part of the tumor that a person accepted when reviewing predictions.
        rejected: What a person rejected; part of the normal region wherever that has a source.
        unlabeled: What is drawn with a class that means neither, or without one; outlines of areas
            are no part of it.
        areas: What a person outlined as looked at (``Region*``); empty if nothing is.
    """

    tumor_region: MultiPolygon
    normal_region: MultiPolygon
    dropped: tuple[Dropped, ...]
    normal_source: NormalSource
    ignored: MultiPolygon = field(default_factory=MultiPolygon)
    accepted: MultiPolygon = field(default_factory=MultiPolygon)
    rejected: MultiPolygon = field(default_factory=MultiPolygon)
    unlabeled: MultiPolygon = field(default_factory=MultiPolygon)
    areas: MultiPolygon = field(default_factory=MultiPolygon)

    def summary(self) -> list[str]:
        """One line per class and reason, most frequent first."""
        return summarized(self.dropped)


def label_regions(
    annotations: Sequence[Annotation],
    width: int,
    height: int,
    *,
    mpp: float,
    config: TrainConfig = _DEFAULTS,
    tissue: TissueMask | None = None,
) -> LabelRegions:
    """Turn the annotations of one slide into a tumor and a normal region.

    Tumor is the union of the tumor classes and their derived classes, normal that of the normal
    classes; tumor wins where they overlap. Without drawn normal polygons, normal is the tissue at
    least the margin away from anything marked as tumor and from whatever else is drawn with another
    class or none, provided that there is a tissue mask, and a tumor polygon on the slide or, if it
    is declared normal, no mark of tumor at all; where areas are outlined (``Region*``), only the
    tissue inside them. No tissue is normal where the outlines of areas or normal regions are lost.
    An annotation of another class around something labeled outlines an area, too, and keeps nothing
    away. Ignored classes are cut out of both.

    What qprd predicted is neither, until a person gives it a class: an accepted contour is tumor as
    drawn; a rejected one is normal, beside the tissue that counts as normal and not instead of it.

    Returns:
        Both regions, clipped to the image, in level-0 pixels, and what was dropped.

    Raises:
        QprdError: The same class is wanted for two of tumor, normal and tissue.
    """
    classes = Classes.of(config)
    image = box(0, 0, width, height)
    # `find_tissue_of` says what is lost of the tissue that is drawn.
    drawn = collect([a for a in annotations if role_of(a, classes) != "tissue"], image, classes)
    dropped = drawn.dropped
    annotations_without, unlabeled = unlabeled_of(drawn, classes)
    if annotations_without:
        note = unlabeled_note(annotations_without, classes)
        area = sum(geometry.area for geometry in unlabeled)
        dropped.append(Dropped(None, note, area))
    tumor_name, normal_name = config.tumor_class[0], config.normal_class[0]
    tumor: BaseGeometry = drawn.union("tumor")
    normal: BaseGeometry = MultiPolygon()
    source: NormalSource = "none"
    why_not_from_tissue = drawn.why_not_from_tissue(
        tumor_name, normal_name, is_declared=config.unannotated_normal
    )
    if drawn.parts["normal"] or (drawn.parts["rejected"] and why_not_from_tissue):
        source = "annotations"
        normal = shapely.union(drawn.union("normal"), drawn.union("rejected"))
        overlap = shapely.intersection(normal, tumor).area
        if overlap >= NEGLIGIBLE_PX2:
            reason = f"What overlaps {tumor_name} counts as {tumor_name}"
            dropped.append(Dropped(normal_name, reason, overlap))
        normal = shapely.difference(normal, tumor)
    elif why_not_from_tissue:
        dropped.append(why_not_from_tissue)
    elif tissue is None:
        reason = "None is drawn, and there is no tissue mask to take it from"
        dropped.append(Dropped(normal_name, reason))
    else:
        source = "tissue"
        # What has no usable outline teaches nothing, but is no place for normal either.
        unusable = [g for role in ("tumor", "pending", "ignored") for g in drawn.unusable[role]]
        marked = [*polygons_of(tumor), *unusable, *unlabeled]
        inside = shapely.intersection(tissue.to_polygons(), image)
        if drawn.parts["area"]:
            inside = shapely.intersection(inside, drawn.union("area"))
        undrawn = shapely.difference(inside, surroundings(marked, config.margin_um / mpp))
        undrawn = shapely.difference(undrawn, drawn.union("pending"))
        normal = shapely.union(undrawn, shapely.difference(drawn.union("rejected"), tumor))

    ignored = drawn.union("ignored")
    for name, region in ((tumor_name, tumor), (normal_name, normal)):
        lost = shapely.intersection(region, ignored).area
        if lost >= NEGLIGIBLE_PX2:
            reason = f"An ignored class cuts out {lost / region.area:.0%} of it"
            dropped.append(Dropped(name, reason, lost))
    rejected = shapely.difference(drawn.union("rejected"), tumor)
    return LabelRegions(
        multipolygon(shapely.difference(tumor, ignored)),
        multipolygon(shapely.difference(normal, ignored)),
        tuple(dropped),
        source,
        multipolygon(ignored),
        accepted=multipolygon(shapely.difference(shapely.union_all(drawn.accepted), ignored)),
        rejected=multipolygon(shapely.difference(rejected, ignored)),
        unlabeled=multipolygon(shapely.disjoint_subset_union_all(unlabeled)),
        areas=multipolygon(drawn.union("area")),
    )
