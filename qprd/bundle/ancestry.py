"""The origin of a bundle: the bundles before it, and the annotations that it was trained on."""

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

#: Most annotations that ``bundle.json`` lists; of more it has one digest per slide.
MAX_LISTED = 10_000
#: Most ancestors that it names.
MAX_ANCESTORS = 1000


@dataclass(frozen=True, config=STRICT)
class Ancestor:
    """A bundle whose weights a training started from.

    Attributes:
        sha256: Digest of its file of weights.
    """

    name: Text
    sha256: Sha256
    created: AwareDatetime


@dataclass(frozen=True, config=STRICT)
class SlideAnnotations:
    """The annotations of one slide that a training used.

    Attributes:
        sha256: Digest of all annotations, whatever their order.
        annotations: Id and digest (see `annotation_sha256`) of each annotation, sorted; empty where
            a project has more than `MAX_LISTED`.
    """

    entry_id: Text
    image: Text
    count: Count
    sha256: Sha256
    annotations: tuple[tuple[Text, Sha256], ...] = ()

    @classmethod
    def of(
        cls, entry_id: str, image: str, annotations: Iterable[tuple[str, str]]
    ) -> SlideAnnotations:
        """Make the record of one slide from the id and the digest of each annotation."""
        listed = sorted(annotations)
        text = "".join(f"{annotation_id}\0{digest}\n" for annotation_id, digest in listed)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return cls(entry_id, image, len(listed), digest, tuple(listed))


@dataclass(frozen=True, config=STRICT)
class ReviewCounts:
    """Counts of what in a training came from reviewed predictions.

    Attributes:
        accepted: Annotations of training slides that were predicted and accepted.
        rejected: Annotations of these slides that were predicted and rejected.
        tumor_patches: Training patches in accepted regions.
        normal_patches: Training patches in rejected regions.
        validation: Annotations of validation slides that were predicted, and accepted or rejected.
    """

    accepted: Count = 0
    rejected: Count = 0
    tumor_patches: Count = 0
    normal_patches: Count = 0
    validation: Count = 0


@dataclass(frozen=True, config=STRICT)
class AnnotationChanges:
    """Changes of annotations between two trainings."""

    new: int
    changed: int
    gone: int


def annotation_sha256(class_name: str | None, geometry: BaseGeometry) -> str:
    """Compute a digest of an annotation's class and outline, whatever the order of its vertices."""
    outline = shapely.to_wkb(shapely.normalize(geometry), byte_order=1, output_dimension=2)
    name = "" if class_name is None else class_name
    return hashlib.sha256(name.encode("utf-8", "replace") + b"\0" + outline).hexdigest()


def without_long_lists(
    slides: Sequence[SlideAnnotations], limit: int = MAX_LISTED
) -> tuple[SlideAnnotations, ...]:
    """Drop the lists of annotations if they have more than ``limit`` annotations together."""
    if sum(slide.count for slide in slides) <= limit:
        return tuple(slides)
    return tuple(replace(slide, annotations=()) for slide in slides)


def annotation_changes(
    before: Sequence[SlideAnnotations], now: Sequence[SlideAnnotations]
) -> AnnotationChanges | None:
    """Compare the annotations of two trainings.

    Ids need not be unique: annotations from files without ids have made-up ones.

    Returns:
        The changes; None if a slide does not list its annotations.
    """
    if any(len(slide.annotations) < slide.count for slide in (*before, *now)):
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
