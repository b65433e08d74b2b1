"""``qprd train``: from the annotations of a project to a bundle."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.config import TrainConfig
from qprd.errors import QprdError
from qprd.jobs.slides import open_slide, select_entries, slide_mpp
from qprd.layout import ProjectLayout
from qprd.progress import Progress
from qprd.qupath.project import Annotation, Entry, Project
from qprd.sampling.build import SamplingRules, SlideRegions, build_patch_table
from qprd.sampling.regions import check_classes, is_derived, label_regions
from qprd.sampling.splits import SPLITS
from qprd.sampling.table import PatchTable
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from qprd.training import ValidationPatches

PATCHES = "patches.csv"
HISTORY = "history.csv"
PLOT = "history.png"


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
    from qprd.review.training_plot import training_plot
    from qprd.sampling.dataset import PatchDataset, decode_all
    from qprd.training import ValidationPatches, fit, save_history

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    prepared = _prepare(project, config, patches, progress)
    fabric = make_fabric(config.device, config.precision)
    weights = None if config.weights is None else Path(config.weights)
    model = build_frd(build_teacher(config.teacher, weights=weights), config.seed)

    train_table, val_table = prepared.table.subset("train"), prepared.table.subset("val")
    counts = Counter(patch.label for patch in train_table.patches)
    loss = build_loss(
        n_tumor=counts["tumor"],
        n_normal=counts["normal"],
        alpha=config.alpha,
        gamma=config.gamma,
        similarity=config.similarity,
        labels=config.labels,
    )
    with TemporaryDirectory(prefix="cache-", dir=layout.root) as cache:
        with progress.task("reading patches", len(train_table) + len(val_table)) as task:

            def decode(table: PatchTable, split: str) -> NDArray[np.uint8]:
                folder = Path(cache) / split
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
    notes = (*prepared.notes, *prepared.table.notes, *calibrated.notes)
    info = BundleInfo(
        name=_bundle_name(config),
        teacher=TeacherInfo.of(model.teacher),
        mpp=config.mpp,
        patch_px=config.patch_px,
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
    prepared.table.to_csv(bundle / PATCHES)
    save_history(outcome.history, bundle / HISTORY)
    training_plot(
        [asdict(row) for row in outcome.history],
        bundle / PLOT,
        best_epoch=best.epoch,
        title=info.name,
    )
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
    if config.tumor or not config.unannotated_normal:
        wanted = config.tumor_class if config.tumor else config.tumor_class + config.normal_class
        check_classes(wanted, _class_counts(annotations.values()))
    notes: list[str] = []
    slides: list[SlideRegions] = []
    with progress.task("finding tissue", len(entries)) as task:
        for entry in entries:
            if _is_labelled(annotations[entry.id], config) or config.unannotated_normal:
                try:
                    slides.append(_slide_regions(entry, annotations[entry.id], config, notes))
                except QprdError as error:
                    notes.append(_one_line(entry, error))
            else:
                notes.append(f"{entry.name}: no annotation of these classes; not used")
            task.advance()
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
    table = PatchTable.from_csv(file)
    known = {slide.entry_id: slide.name for slide in slides}
    for patch in table.patches:
        if known.get(patch.slide) != patch.name:
            raise QprdError(
                f"The patch table names slide {patch.slide} ({patch.name}), which is not among "
                "the usable slides of this project.",
                where=str(file),
            )
        if abs(patch.mpp - config.mpp) > 1e-6 * config.mpp:
            raise QprdError(
                f"The patch table is for {patch.mpp:g} um/px; the model works at {config.mpp:g}.",
                where=str(file),
                fix=f"Give --mpp {patch.mpp:g}.",
            )
    if not any(patch.split == "train" and patch.label == "normal" for patch in table.patches):
        raise QprdError("The patch table has no normal training patches.", where=str(file))
    return table


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


def _is_labelled(annotations: Sequence[Annotation], config: TrainConfig) -> bool:
    classes = config.tumor_class + config.normal_class
    return any(is_derived(annotation.class_name, classes) for annotation in annotations)


def _class_counts(annotations: Iterable[Sequence[Annotation]]) -> Counter[str]:
    return Counter(
        annotation.class_name or "unclassified"
        for of_slide in annotations
        for annotation in of_slide
    )


def _slide_names(table: PatchTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys(patch.name for patch in table.patches))


def _patch_counts(table: PatchTable) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in table.counts().items():
        if count:
            counts.setdefault(split, {})[label] = count
    return counts


def _one_line(entry: Entry, error: QprdError) -> str:
    fix = f" {error.fix}" if error.fix else ""
    return f"{entry.name}: {error.problem}{fix}"


def _bundle_name(config: TrainConfig) -> str:
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{config.teacher.replace(':', '-')}"
