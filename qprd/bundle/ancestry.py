"""Where a bundle comes from: the bundles before it, and the annotations that it saw."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import shapely
from pydantic import AwareDatetime
from pydantic.dataclasses import dataclass
from shapely.geometry.base import BaseGeometry

from qprd.checked import STRICT, Count, Sha256, Text

#: Annotations that ``bundle.json`` lists one by one; beyond it has a digest of each slide's.
MAX_LISTED = 10_000
#: Bundles before a bundle that it names.
MAX_ANCESTORS = 1000


@dataclass(frozen=True, config=STRICT)
class Ancestor:
    """A bundle whose weights a training started from.

    Attributes:
        name: Its name.
        sha256: Digest of its file of weights.
        created: When it was made.
    """

    name: Text
    sha256: Sha256
    created: AwareDatetime


@dataclass(frozen=True, config=STRICT)
class SeenSlide:
    """The annotations of one slide that had a say in a training.

    Attributes:
        entry_id: Id of the slide's entry.
        image: Its image name.
        count: Number of annotations.
        sha256: Digest of them all, whatever their order.
        annotations: Id and digest of each (see `annotation_sha256`), by id; empty where a project
            has more than `MAX_LISTED`.
    """

    entry_id: Text
    image: Text
    count: Count
    sha256: Sha256
    annotations: tuple[tuple[Text, Sha256], ...] = ()


@dataclass(frozen=True, config=STRICT)
class ReviewCounts:
    """How much of a training came from reviewed predictions.

    Attributes:
        accepted: Annotations of training and validation slides that were predicted and accepted.
        rejected: Likewise rejected.
        tumor_patches: Training patches in accepted regions.
        normal_patches: Training patches in rejected regions.
    """

    accepted: Count = 0
    rejected: Count = 0
    tumor_patches: Count = 0
    normal_patches: Count = 0


@dataclass(frozen=True, config=STRICT)
class AnnotationChanges:
    """What happened to annotations between two trainings.

    Attributes:
        new: Annotations with an id that was not there.
        changed: Of the same id, with another class or outline.
        gone: Whose id is not there any more.
    """

    new: int
    changed: int
    gone: int


def annotation_sha256(class_name: str | None, geometry: BaseGeometry) -> str:
    """Digest of an annotation's class and outline; the same however its vertices are ordered."""
    outline = shapely.to_wkb(shapely.normalize(geometry), byte_order=1, output_dimension=2)
    name = "" if class_name is None else class_name
    return hashlib.sha256(name.encode("utf-8", "replace") + b"\0" + outline).hexdigest()


def seen_slide(entry_id: str, image: str, annotations: Iterable[tuple[str, str]]) -> SeenSlide:
    """The record of one slide from id and digest of each annotation."""
    listed = sorted(annotations)
    text = "".join(f"{annotation_id}\0{digest}\n" for annotation_id, digest in listed)
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return SeenSlide(entry_id, image, len(listed), digest, tuple(listed))


def limited(slides: Sequence[SeenSlide], most: int = MAX_LISTED) -> tuple[SeenSlide, ...]:
    """The slides as a bundle records them: without their lists if these are too long together."""
    if sum(slide.count for slide in slides) <= most:
        return tuple(slides)
    return tuple(replace(slide, annotations=()) for slide in slides)


def annotation_changes(
    before: Sequence[SeenSlide], now: Sequence[SeenSlide]
) -> AnnotationChanges | None:
    """Compare what two trainings saw; None if one of them lists no annotations.

    Ids need not be unique, such as those of annotations from files that have none.
    """
    if not all(_is_listed(slide) for slide in (*before, *now)):
        return None
    old, new = (
        Counter(
            (slide.entry_id, annotation_id, digest)
            for slide in slides
            for annotation_id, digest in slide.annotations
        )
        for slides in (before, now)
    )
    lost, found = (
        Counter((entry_id, annotation_id) for entry_id, annotation_id, _ in rest.elements())
        for rest in (old - new, new - old)
    )
    return AnnotationChanges(
        new=(found - lost).total(), changed=(found & lost).total(), gone=(lost - found).total()
    )


def _is_listed(slide: SeenSlide) -> bool:
    return len(slide.annotations) == slide.count
