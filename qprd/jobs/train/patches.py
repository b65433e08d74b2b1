"""From the annotations of a project to the patches to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from qprd.bundle.ancestry import ReviewCounts, SlideAnnotations, annotation_sha256
from qprd.errors import QprdError
from qprd.files.packed import PackedValues
from qprd.jobs.train.table import patch_table
from qprd.progress import Progress
from qprd.qupath.entry_slides import (
    file_size,
    identity_of,
    name_list,
    open_slide,
    recorded_name,
    select_entries,
    slide_identity,
    slide_mpp,
)
from qprd.qupath.image_annotations import read_image_annotations
from qprd.qupath.project import Annotation, Entry, Project
from qprd.sampling.build import SlideRegions
from qprd.sampling.classes import Classes, Role, check_classes, has_drawn, role_of, similar_classes
from qprd.sampling.drawn import unlabeled_note
from qprd.sampling.regions import LabelRegions, label_regions
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import Split, SplitCandidate
from qprd.sampling.table import PatchTable
from qprd.sampling.tissue import find_tissue_of
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import KnownSlides, SlideIdentity
from qprd.slides.remarks import overview_of, remarks
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask

#: Names shown where a note concerns many images.
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class DrawnOnSlide:
    """What a bundle records of the annotations of a slide, as they were when it was sampled.

    Attributes:
        seen: The annotations with a say in a training.
        judged: Number of judged predictions by what they mean.
    """

    seen: SlideAnnotations
    judged: Mapping[Role, int]

    @classmethod
    def of(
        cls, entry: Entry, annotations: Iterable[Annotation], config: TrainConfig
    ) -> DrawnOnSlide:
        """Make the record of an entry."""
        roles = list(_with_roles(annotations, config))
        digests = (
            (annotation.id, annotation_sha256(annotation.class_name, annotation.geometry))
            for annotation, role in roles
            if role not in ("pending", "other")
        )
        return cls(
            SlideAnnotations.of(entry.id, recorded_name(entry.name), digests),
            Counter(role for annotation, role in roles if annotation.predicted),
        )


@dataclass(frozen=True)
class PreparedPatches:
    """All that is known before the first patch is read.

    Attributes:
        slides: The usable slides with their label regions.
        left_out: Annotated slides that cannot be read.
        entries: All chosen entries by id.
        table: The patches.
        notes: What the user should know of slides and annotations.
        assume_mpp: Resolution of slides that do not state theirs.
        drawn: What is recorded of the annotations of each usable slide, by its id.
    """

    slides: tuple[SlideRegions, ...]
    left_out: tuple[SplitCandidate, ...]
    entries: dict[str, Entry]
    table: PatchTable
    notes: tuple[str, ...]
    assume_mpp: float | None
    drawn: Mapping[str, DrawnOnSlide]

    def without(
        self, entry_id: str, error: QprdError, patches: Path | None, config: TrainConfig
    ) -> PreparedPatches:
        """Choose the patches anew without a slide whose pixels cannot be read."""
        (lost,) = (slide for slide in self.slides if slide.entry_id == entry_id)
        slides = tuple(slide for slide in self.slides if slide is not lost)
        left_out = (*self.left_out, lost.candidate)
        notes = [*self.notes, error.line_about(lost.name)]
        table = patch_table(slides, left_out, patches, config, notes)
        return replace(self, slides=slides, left_out=left_out, notes=tuple(notes), table=table)

    @cached_property
    def identities(self) -> Mapping[str, SlideIdentity]:
        """What tells the usable slides from others, by entry id."""
        return {slide.entry_id: slide.identity for slide in self.slides}

    def slides_in(self, split: Split) -> tuple[SlideIdentity, ...]:
        """The slides that have patches in a split."""
        used = dict.fromkeys(patch.slide for patch in self.table.subset(split).patches)
        return tuple(self.identities[entry_id] for entry_id in used)

    def open(self, entry_id: str) -> Slide:
        """Open the slide of an entry."""
        return open_slide(self.entries[entry_id], assume_mpp=self.assume_mpp)

    def seen(self) -> tuple[SlideAnnotations, ...]:
        """The annotations with a say in the training; those of test slides have none."""
        return tuple(self.drawn[slide].seen for slide in self._used_slides())

    def review_counts(self) -> ReviewCounts:
        """How much of the training comes from reviewed predictions."""
        patches = self.table.subset("train").patches
        training = {patch.slide for patch in patches}
        judged = Counter[tuple[bool, Role]]()
        for slide in self._used_slides():
            for role, count in self.drawn[slide].judged.items():
                judged[slide in training, role] += count
        reviewed = Counter(patch.label for patch in patches if patch.reviewed)
        return ReviewCounts(
            accepted=judged[True, "tumor"],
            rejected=judged[True, "rejected"],
            validation=judged[False, "tumor"] + judged[False, "rejected"],
            tumor_patches=reviewed["tumor"],
            normal_patches=reviewed["normal"],
        )

    def _used_slides(self) -> list[str]:
        used = (patch.slide for patch in self.table.patches if patch.split != "test")
        return list(dict.fromkeys(used))


def _with_roles(
    annotations: Iterable[Annotation], config: TrainConfig
) -> Iterator[tuple[Annotation, Role]]:
    for annotation in annotations:
        yield annotation, role_of(annotation, Classes.of(config))


def prepare_patches(
    project: Project,
    config: TrainConfig,
    patches: Path | None,
    progress: Progress,
    *,
    earlier: Callable[[SlideIdentity], Split | None] = lambda _: None,
) -> PreparedPatches:
    """Find the label regions of a project's slides and choose patches from them.

    Args:
        project: Read only.
        config: Classes, counts, rules.
        patches: A patch table to use instead of sampling.
        progress: Shows one bar.
        earlier: Gives the split of a slide that counts where its metadata name none.

    Raises:
        QprdError: there is nothing to learn from, or too little; it says what there is.
    """
    entries = select_entries(project, config.images, config.exclude)
    for entry in entries:
        metadata_split(entry.metadata, entry.name)  # a wrong one stops the training, not its slide
    drawn = read_image_annotations(project, entries)
    annotations, recorded = drawn.annotations, {}
    left_out = [
        _unread(entry, drawn.unreadable[entry.id].classes, config)
        for entry in entries
        if entry.id in drawn.unreadable
    ]
    unseen = [
        *(
            drawn.unreadable[image.entry_id].error.line_about(image.slide.name)
            for image in left_out
        ),
        *drawn.notes(entries),
    ]
    if config.tumor != 0 or not config.unannotated_normal:
        alone = config.tumor_class + config.normal_class
        wanted = alone if config.tumor == 0 else config.tumor_class
        _check_classes(wanted, annotations.values(), unseen)
    notes = list(unseen)
    by_id = {entry.id: entry for entry in entries}
    unlabelled: list[Entry] = []
    slides: list[SlideRegions] = []
    packed = PackedValues[tuple[LabelRegions, TissueMask | None]]()
    with progress.task("finding tissue", len(entries)) as task:
        for entry in entries:
            task.advance()
            if entry.id in drawn.unreadable:
                continue
            own = annotations[entry.id]
            classes = [annotation.class_name for annotation in own]
            labels = config.tumor_class + config.normal_class
            if not config.unannotated_normal and not has_drawn(classes, labels):
                unlabelled.append(entry)
                continue
            try:
                found = slide_regions(entry, own, config, notes)
                recorded[entry.id] = DrawnOnSlide.of(entry, own, config)
            except QprdError as error:
                notes.append(error.line_about(entry.name))
                left_out.append(_unread(entry, classes, config))
            else:
                slides.append(found.packed_in(packed))
    if unlabelled:
        names = name_list(unlabelled, _NAMES_SHOWN)
        notes.append(f"not used, without an annotation of these classes: {names}")
        notes += [
            f"{entry.name}: {note}"
            for entry in unlabelled
            if (note := _misspelled_note(annotations[entry.id], config))
        ]
    left_out += _other_images(unlabelled, slides, by_id)
    decided = KnownSlides(
        image.slide
        for image in (*left_out, *(slide.candidate for slide in slides))
        if image.metadata_split is not None
    )

    def split_of(slide: SlideIdentity, meant: Split | None) -> Split | None:
        return meant if slide in decided else earlier(slide)

    slides = [
        replace(slide, metadata_split=split_of(slide.identity, slide.metadata_split))
        for slide in slides
    ]
    left_out = [
        replace(image, metadata_split=split_of(image.slide, image.metadata_split))
        for image in left_out
    ]
    return PreparedPatches(
        tuple(slides),
        tuple(left_out),
        by_id,
        patch_table(slides, left_out, patches, config, notes),
        tuple(notes),
        config.assume_mpp,
        recorded,
    )


def _unread(
    entry: Entry, classes: Sequence[str | None] | None, config: TrainConfig
) -> SplitCandidate:
    """What is known of a slide that cannot be read: the classes drawn on it, or not even these."""
    if classes is None:
        classes = [*config.tumor_class, *config.normal_class]
    has_tumor = has_drawn(classes, config.tumor_class)
    has_normal = has_tumor or config.unannotated_normal or has_drawn(classes, config.normal_class)
    split = metadata_split(entry.metadata, entry.name)
    return SplitCandidate(entry.id, identity_of(entry), split, has_tumor, has_normal)


def _other_images(
    unlabelled: Sequence[Entry], slides: Sequence[SlideRegions], entries: Mapping[str, Entry]
) -> list[SplitCandidate]:
    """Find images without annotations that have a split, and may show one of the slides again.

    Only files of the same size can be copies: the others are not opened.
    """
    sizes = {file_size(entries[slide.entry_id]) for slide in slides}
    return [
        SplitCandidate(entry.id, identity_of(entry), split, has_tumor=False, has_normal=False)
        for entry in unlabelled
        if (split := metadata_split(entry.metadata, entry.name)) and file_size(entry) in sizes
    ]


def slide_regions(
    entry: Entry,
    annotations: Sequence[Annotation],
    config: TrainConfig,
    notes: list[str],
    tissue: TissueMask | None = None,
) -> SlideRegions:
    """Find the tissue of a slide and its label regions.

    Args:
        entry: The slide.
        annotations: Of the slide.
        config: Classes and rules.
        notes: What the user should know of tissue and annotations is added here.
        tissue: Where tissue is, if that is known.

    Raises:
        QprdError: the slide cannot be read, or has no resolution.
    """
    with open_slide(entry, assume_mpp=config.assume_mpp) as slide:
        tissue_notes: list[str] = []
        if tissue is None:
            tissue, tissue_notes = find_tissue_of(slide, annotations, config)
        regions = label_regions(
            annotations,
            slide.width,
            slide.height,
            mpp=slide_mpp(slide),
            config=config,
            tissue=tissue,
        )
        patch_um = config.patch_px * config.mpp
        doubts = remarks(slide, overview_of(slide), patch_um=patch_um, mpp=config.mpp)
        notes.extend(
            f"{entry.name}: {line}" for line in (*tissue_notes, *doubts, *regions.summary())
        )
        return SlideRegions.of(
            entry.id,
            slide_identity(entry, slide),
            (slide.width, slide.height, slide_mpp(slide)),
            regions=regions,
            # A training does not ask what its slides show beside tissue.
            tissue=replace(tissue, surface=None),
            metadata_split=metadata_split(entry.metadata, entry.name),
        )


def _check_classes(
    wanted: Sequence[str], annotations: Iterable[Sequence[Annotation]], unseen: Sequence[str]
) -> None:
    """Like `check_classes`; annotations that were not exported may be what is missing."""
    try:
        check_classes(wanted, _class_counts(annotations))
    except QprdError as error:
        fix = "\n         ".join(filter(None, (*unseen[:_NAMES_SHOWN], error.fix)))
        raise QprdError(error.problem, where=error.where, fix=fix or None) from error


def _misspelled_note(annotations: Sequence[Annotation], config: TrainConfig) -> str | None:
    """Say which annotations of a slide have a class that may be a tumor or normal class misspelled.

    None if there are no such annotations.
    """
    classes = Classes.of(config)
    found = [
        annotation
        for annotation, role in _with_roles(annotations, config)
        if role == "other"
        and annotation.class_name is not None
        and similar_classes(classes.labels, [annotation.class_name])
    ]
    if not found:
        return None
    return unlabeled_note(found, classes)


def _class_counts(annotations: Iterable[Sequence[Annotation]]) -> Counter[str]:
    return Counter(
        annotation.class_name or "unclassified"
        for of_slide in annotations
        for annotation in of_slide
    )
