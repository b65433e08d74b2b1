"""``qprd train``: from the annotations of a project to a bundle."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.config import TrainConfig
from qprd.errors import QprdError
from qprd.jobs.slides import open_slide, recorded_name, select_entries, slide_mpp
from qprd.jobs.training_files import patch_cache, require_space, save_records, writing_cache
from qprd.layout import ProjectLayout
from qprd.progress import Progress
from qprd.qupath.project import Annotation, Entry, Project
from qprd.results import is_own_class
from qprd.sampling.build import SamplingRules, SlideRegions, build_patch_table
from qprd.sampling.regions import check_classes, is_derived, label_regions
from qprd.sampling.splits import SPLITS, parse_split
from qprd.sampling.table import PatchTable
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from qprd.training import TrainingOutcome, ValidationPatches

#: Names shown where a note concerns many images.
_NAMES_SHOWN = 5


#: Validation AUROC below which a model is said to be of no use.
_WORTHLESS_AUROC = 0.6


@dataclass(frozen=True)
class TrainSummary:
    """What a training run did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        teacher: Name of the teacher.
        patches: Number of patches by split and label, e.g. ``{"train": {"normal": 300, ...}}``.
        slides: Image names by split.
        best_epoch: Whose weights were kept.
        epochs: Finished epochs.
        val_accuracy: Of the threshold below, on validation patches; None if undefined.
        val_auroc: Likewise.
        threshold: Raw score from which tissue counts as tumor; None without validation.
        notes: What the user should know.
        interrupted: Ctrl-C ended it early.
        seconds: Time spent.
    """

    project: Path
    backend: str
    bundle: Path
    teacher: str
    patches: dict[str, dict[str, int]]
    slides: dict[str, list[str]]
    best_epoch: int
    epochs: int
    val_accuracy: float | None
    val_auroc: float | None
    threshold: float | None
    notes: tuple[str, ...]
    interrupted: bool
    seconds: float

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [f"note: {note}" for note in self.notes]
        for split, counts in self.patches.items():
            slides = self.slides.get(split, [])
            lines.append(
                f"{split:>8}: {counts.get('normal', 0)} normal + {counts.get('tumor', 0)} tumor "
                f"patches from {', '.join(slides[:5])}{', ...' if len(slides) > 5 else ''}"
            )
        if self.interrupted:
            lines.append(f"Interrupted after {self.epochs} epochs; the best one is kept.")
        if self.val_accuracy is not None and self.val_auroc is not None:
            lines.append(
                f"Epoch {self.best_epoch} of {self.epochs} is best on validation patches: "
                f"accuracy {self.val_accuracy:.3f}, AUROC {self.val_auroc:.3f}, "
                f"threshold {self.threshold:.3f}."
            )
        else:
            lines.append(
                f"Epoch {self.best_epoch} of {self.epochs} is kept; without validation patches "
                "of both classes there is no threshold and no probability."
            )
        lines.append(f"Trained in {self.seconds:.0f} s with {self.teacher}.")
        lines.append(f"Bundle: {self.bundle}")
        return lines


def train_project(
    project: Project,
    config: TrainConfig,
    *,
    patches: Path | None = None,
    progress: Progress,
) -> TrainSummary:
    """Sample patches from a project's annotations, train on them, save a bundle.

    Args:
        project: Read only.
        config: Settings.
        patches: A patch table to use instead of sampling.
        progress: Shows what takes long.

    Raises:
        QprdError: something of the user's is missing or wrong; no bundle was written.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
    """
    from qprd.device import make_fabric
    from qprd.model.bundle import BundleInfo, TeacherInfo, save_bundle
    from qprd.model.frd import build_frd
    from qprd.model.loss import build_loss
    from qprd.model.teacher import build_teacher
    from qprd.sampling.dataset import PatchDataset, decode_all
    from qprd.training import ValidationPatches, fit

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    # What can fail at once comes before what takes long.
    fabric = make_fabric(config.device, config.precision)
    weights = None if config.weights is None else Path(config.weights)
    model = build_frd(build_teacher(config.teacher, weights=weights), config.seed)
    require_space(layout.root, model)
    prepared = _prepare(project, config, patches, progress)

    train_table, val_table = prepared.table.subset("train"), prepared.table.subset("val")
    if len(train_table) < 2:
        raise QprdError(
            "Training needs at least two patches.", where="--normal", fix="Ask for more patches."
        )
    counts = Counter(patch.label for patch in train_table.patches)
    loss = build_loss(
        n_tumor=counts["tumor"],
        n_normal=counts["normal"],
        alpha=config.alpha,
        gamma=config.gamma,
        similarity=config.similarity,
        labels=config.labels,
    )
    with patch_cache(layout.root) as cache:
        with progress.task("reading patches", len(train_table) + len(val_table)) as task:

            def decode(table: PatchTable, split: str) -> NDArray[np.uint8]:
                with writing_cache(cache):
                    folder = cache / split
                    folder.mkdir()
                    return decode_all(
                        table,
                        prepared.open,
                        patch_px=config.patch_px,
                        folder=folder,
                        progress=lambda _done, _all: task.advance(),
                    )

            train_images, val_images = decode(train_table, "train"), decode(val_table, "val")
        dataset = PatchDataset(
            train_table,
            train_images,
            patch_px=config.patch_px,
            labels=config.labels,
            regions={slide.entry_id: slide.regions for slide in prepared.slides},
            augment=config.augment,
            seed=config.seed,
        )
        val = None
        if len(val_table):
            tumor = np.array([patch.label == "tumor" for patch in val_table.patches])
            val = ValidationPatches(val_images, tumor)
        outcome = fit(model, dataset, loss, val, config, fabric=fabric, progress=progress)

    calibrated = _calibrate(val, outcome.val_scores)
    best = outcome.best
    notes = (*prepared.notes, *prepared.table.notes, *calibrated.notes, *_worth(outcome))
    info = BundleInfo(
        name=_bundle_name(config, layout.bundles),
        teacher=TeacherInfo.of(model.teacher),
        mpp=config.mpp,
        patch_px=config.patch_px,
        patch_score=config.patch_score,
        threshold=calibrated.threshold,
        calibration=calibrated.calibration,
        classes={"tumor": config.tumor_class, "normal": config.normal_class},
        config=config.model_dump(mode="json"),
        metrics={
            "best_epoch": best.epoch,
            "epochs": len(outcome.history),
            "val_accuracy": best.val_accuracy,
            "val_auroc": best.val_auroc,
        },
        patches={f"{s}_{label}": n for (s, label), n in prepared.table.counts().items() if n},
        training_slides=_slide_names(train_table),
        validation_slides=_slide_names(val_table),
    )
    bundle = layout.bundles / info.name
    save_bundle(bundle, model, info)
    save_records(bundle, prepared.table, outcome)
    return TrainSummary(
        project=project.path,
        backend=project.backend,
        bundle=bundle,
        teacher=config.teacher,
        patches=_patch_counts(prepared.table),
        slides={split: list(_slide_names(prepared.table.subset(split))) for split in SPLITS},
        best_epoch=best.epoch,
        epochs=len(outcome.history),
        val_accuracy=best.val_accuracy,
        val_auroc=best.val_auroc,
        threshold=calibrated.threshold,
        notes=tuple(dict.fromkeys(notes)),
        interrupted=outcome.interrupted,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Prepared:
    """All that is known before the first patch is read."""

    slides: tuple[SlideRegions, ...]
    entries: dict[str, Entry]
    table: PatchTable
    notes: tuple[str, ...]
    assume_mpp: float | None

    def open(self, entry_id: str) -> Slide:
        return open_slide(self.entries[entry_id], assume_mpp=self.assume_mpp)


def _prepare(
    project: Project, config: TrainConfig, patches: Path | None, progress: Progress
) -> _Prepared:
    entries = select_entries(project, config.images)
    annotations = {entry.id: list(project.annotations(entry)) for entry in entries}
    unseen = _unseen_annotations(project, entries)
    if config.tumor or not config.unannotated_normal:
        wanted = config.tumor_class if config.tumor else config.tumor_class + config.normal_class
        _check_classes(wanted, annotations.values(), unseen)
    notes = list(unseen)
    unlabelled: list[Entry] = []
    slides: list[SlideRegions] = []
    with progress.task("finding tissue", len(entries)) as task:
        for entry in entries:
            if _is_labelled(annotations[entry.id], config) or config.unannotated_normal:
                try:
                    slides.append(_slide_regions(entry, annotations[entry.id], config, notes))
                except QprdError as error:
                    notes.append(_one_line(entry, error))
            else:
                unlabelled.append(entry)
            task.advance()
    if unlabelled:
        notes.append(f"not used, without an annotation of these classes: {_some(unlabelled)}")
    if not slides:
        raise QprdError(
            "None of the annotated slides can be used.\n  " + "\n  ".join(notes[:10]),
            where=str(project.path),
            fix="Name the folder of the slides with --slides DIR; `qprd doctor` tells more.",
        )
    if patches is not None:
        table = _given_table(patches, slides, config)
    else:
        table = build_patch_table(
            slides,
            normal=config.normal,
            tumor=config.tumor,
            val=config.val_patches,
            patch_px=config.patch_px,
            mpp=config.mpp,
            seed=config.seed,
            rules=SamplingRules(
                min_coverage=config.min_coverage,
                max_overlap=config.max_overlap,
                min_tissue=config.min_tissue,
            ),
        )
    by_id = {entry.id: entry for entry in entries}
    return _Prepared(tuple(slides), by_id, table, tuple(notes), config.assume_mpp)


def _slide_regions(
    entry: Entry, annotations: Sequence[Annotation], config: TrainConfig, notes: list[str]
) -> SlideRegions:
    with open_slide(entry, assume_mpp=config.assume_mpp) as slide:
        tissue = tissue_mask(slide)
        regions = label_regions(
            annotations,
            slide.width,
            slide.height,
            mpp=slide_mpp(slide),
            tissue=tissue,
            tumor_classes=config.tumor_class,
            normal_classes=config.normal_class,
            margin_um=config.margin_um,
            unannotated_normal=config.unannotated_normal,
        )
        notes.extend(f"{entry.name}: {line}" for line in regions.summary())
        return SlideRegions(
            entry_id=entry.id,
            name=entry.name,
            width=slide.width,
            height=slide.height,
            mpp=slide_mpp(slide),
            regions=regions,
            tissue=tissue,
            metadata_split=entry.metadata.get("split"),
        )


def _given_table(file: Path, slides: Sequence[SlideRegions], config: TrainConfig) -> PatchTable:
    """A table from disk, checked against the project's slides and the model's resolution."""
    try:
        table = PatchTable.from_csv(file)
    except OSError as error:
        raise QprdError(
            f"The patch table cannot be read: {error.strerror}.",
            where=str(file),
            fix="Check the path given to --patches.",
        ) from error
    known = {slide.entry_id: slide for slide in slides}
    for patch in table.patches:
        slide = known.get(patch.slide)
        if slide is None or slide.name != patch.name:
            raise QprdError(
                f"The patch table names slide {patch.slide} ({patch.name}), which is not among "
                "the usable slides of this project.",
                where=str(file),
            )
        meant = parse_split(slide.metadata_split, slide.name)
        if meant is not None and meant != patch.split:
            raise QprdError(
                f"The patch table uses {slide.name} for {patch.split}; its metadata in the project "
                f"say {meant}.",
                where=str(file),
                fix="Correct the one or the other.",
            )
        if abs(patch.mpp - config.mpp) > 1e-6 * config.mpp:
            raise QprdError(
                f"The patch table is for {patch.mpp:g} um/px; the model works at {config.mpp:g}.",
                where=str(file),
                fix=f"Give --mpp {patch.mpp:g}.",
            )
        size_px = config.patch_px * patch.mpp / slide.mpp
        if abs(patch.size_px - size_px) > 1e-3 * size_px:
            raise QprdError(
                f"A patch of {config.patch_px} px covers {size_px:g} px of {slide.name}; the table "
                f"says {patch.size_px:g}.",
                where=str(file),
                fix="Give the --patch-px that the table was made with.",
            )
        # The table has whole pixels, the size of a patch need not be one.
        right, bottom = patch.x + patch.size_px, patch.y + patch.size_px
        if right > slide.width + 1 or bottom > slide.height + 1:
            raise QprdError(
                f"The patch at {patch.x}, {patch.y} lies outside {slide.name}, which has "
                f"{slide.width} x {slide.height} px.",
                where=str(file),
            )
    if not any(patch.split == "train" and patch.label == "normal" for patch in table.patches):
        raise QprdError("The patch table has no normal training patches.", where=str(file))
    return table


def _worth(outcome: TrainingOutcome) -> list[str]:
    """What must be said of a model before anybody uses it."""
    notes = []
    if outcome.diverged:
        notes.append(
            "the training diverged after its last epoch; the best one before is kept. Train with a "
            "lower --lr"
        )
    if outcome.best.val_auroc is not None and outcome.best.val_auroc < _WORTHLESS_AUROC:
        notes.append(
            "the model hardly tells tumor from normal on the validation patches (AUROC "
            f"{outcome.best.val_auroc:.2f}): do not use its contours. More annotations, more "
            "--epochs or another --lr may help"
        )
    return notes


@dataclass(frozen=True)
class _Calibrated:
    threshold: float | None
    calibration: dict[str, float] | None
    notes: tuple[str, ...]


def _calibrate(val: ValidationPatches | None, scores: NDArray[np.float32] | None) -> _Calibrated:
    """Threshold and probability from validation patches, or the reason why there are none."""
    from qprd.evaluation.calibration import Uncalibrated, fit_platt
    from qprd.evaluation.metrics import accuracy_threshold

    fitted = None if val is None or scores is None else accuracy_threshold(val.tumor, scores)
    if val is None or scores is None or fitted is None:
        note = (
            "no validation patches of both classes: the model has no threshold and no "
            "probability; set one with --threshold, or annotate a second slide"
        )
        return _Calibrated(None, None, (note,))
    platt = fit_platt(scores, val.tumor)
    if isinstance(platt, Uncalibrated):
        return _Calibrated(fitted.value, None, (f"no probability: {platt.reason}",))
    return _Calibrated(fitted.value, platt.to_dict(), ())


def _unseen_annotations(project: Project, entries: Sequence[Entry]) -> list[str]:
    """What to know of annotations that QuPath has and this run has not."""
    noted: dict[str, list[Entry]] = {}
    for entry in entries:
        note = project.annotation_note(entry)
        if note is not None:
            noted.setdefault(note, []).append(entry)
    return [f"{_some(members)}: {note}" for note, members in noted.items()]


def _check_classes(
    wanted: Sequence[str], annotations: Iterable[Sequence[Annotation]], unseen: Sequence[str]
) -> None:
    """Like `check_classes`; annotations that were not exported may be what is missing."""
    try:
        check_classes(wanted, _class_counts(annotations))
    except QprdError as error:
        fix = "\n         ".join(filter(None, (error.fix, *unseen[:_NAMES_SHOWN])))
        raise QprdError(error.problem, where=error.where, fix=fix or None) from error


def _some(entries: Sequence[Entry]) -> str:
    names = ", ".join(entry.name for entry in entries[:_NAMES_SHOWN])
    return names + (", ..." if len(entries) > _NAMES_SHOWN else "")


def _is_labelled(annotations: Sequence[Annotation], config: TrainConfig) -> bool:
    classes = config.tumor_class + config.normal_class
    return any(
        is_derived(annotation.class_name, classes) and not is_own_class(annotation.class_name)
        for annotation in annotations
    )


def _class_counts(annotations: Iterable[Sequence[Annotation]]) -> Counter[str]:
    return Counter(
        annotation.class_name or "unclassified"
        for of_slide in annotations
        for annotation in of_slide
    )


def _slide_names(table: PatchTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recorded_name(patch.name) for patch in table.patches))


def _patch_counts(table: PatchTable) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in table.counts().items():
        if count:
            counts.setdefault(split, {})[label] = count
    return counts


def _one_line(entry: Entry, error: QprdError) -> str:
    return error.told_of(entry.name)


def _bundle_name(config: TrainConfig, bundles: Path) -> str:
    """Time and teacher; numbered where another training ended in the same second."""
    name = f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{config.teacher.replace(':', '-')}"
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(free for free in numbered if not (bundles / free).exists())
