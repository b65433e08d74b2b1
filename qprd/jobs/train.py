"""``qprd train``: from the annotations of a project to a bundle."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.config import Recipe, TrainConfig
from qprd.errors import QprdError
from qprd.evaluation.calibration import Reliability
from qprd.evaluation.operating_point import Achieved, Rule
from qprd.jobs.patches import prepare_patches
from qprd.jobs.scoring import SlideScorer
from qprd.jobs.slides import recorded_name
from qprd.jobs.training_files import patch_cache, require_space, save_records, writing_cache
from qprd.jobs.validation import Counted, count_false_positives, require_possible, validate
from qprd.layout import ProjectLayout
from qprd.progress import Progress
from qprd.qupath.project import Project
from qprd.sampling.splits import SPLITS
from qprd.sampling.table import PatchTable

if TYPE_CHECKING:
    from qprd.training import TrainingOutcome

#: Validation AUROC below which a model is said to be of no use.
_WORTHLESS_AUROC = 0.6


@dataclass(frozen=True)
class TrainSummary:
    """What a training run did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        recipe: How it was trained.
        teacher: Name of the teacher.
        patches: Number of patches by split and label, e.g. ``{"train": {"normal": 300, ...}}``.
        slides: Image names by split.
        best_epoch: Whose weights were kept.
        epochs: Finished epochs.
        val_accuracy: Of the most accurate threshold, on validation patches; None if undefined.
        val_auroc: Likewise.
        threshold: Raw score from which tissue counts as tumor; None without validation.
        operating_point: The rule that chose it.
        achieved: What it achieves on the validation data that chose it; None without threshold.
        calibration: Which curve gives the probabilities, and how far they can be trusted; None
            without probability.
        notes: What the user should know.
        interrupted: Ctrl-C ended it early.
        seconds: Time spent.
    """

    project: Path
    backend: str
    bundle: Path
    recipe: Recipe
    teacher: str
    patches: dict[str, dict[str, int]]
    slides: dict[str, list[str]]
    best_epoch: int
    epochs: int
    val_accuracy: float | None
    val_auroc: float | None
    threshold: float | None
    operating_point: str
    achieved: Achieved | None
    calibration: Reliability | None
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
            kept = "best" if self.recipe == "paper" else "last"
            lines.append(f"Interrupted after {self.epochs} epochs; the {kept} one is kept.")
        if self.val_accuracy is not None and self.val_auroc is not None:
            epoch = f"Epoch {self.best_epoch} of {self.epochs}"
            if self.recipe == "paper":
                epoch += " is best"
            lines.append(
                f"{epoch}, on validation patches: "
                f"accuracy {self.val_accuracy:.3f}, AUROC {self.val_auroc:.3f}."
            )
        else:
            lines.append(
                f"Epoch {self.best_epoch} of {self.epochs} is kept; without validation patches "
                "of both classes none is best."
            )
        if self.threshold is None:
            lines.append("There is no threshold.")
        else:
            lines.append(
                f"Operating point {self.operating_point}: threshold {self.threshold:.3f}, on the "
                f"validation data that chose it {self.achieved}."
            )
        if self.calibration is not None:
            lines.append(_told(self.calibration))
        lines.append(f"Trained in {self.seconds:.0f} s with {self.teacher}, recipe {self.recipe}.")
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
    from qprd.model.teacher import build_teacher
    from qprd.recipes import train_model
    from qprd.sampling.dataset import PatchDataset, decode_all
    from qprd.training import ValidationPatches

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    # What can fail at once comes before what takes long.
    fabric = make_fabric(config.device, config.precision)
    weights = None if config.weights is None else Path(config.weights)
    model = build_frd(build_teacher(config.teacher, weights=weights), config.seed, config.recipe)
    require_space(layout.root, model)
    prepared = prepare_patches(project, config, patches, progress)
    rule = Rule.parse(config.operating_point)
    require_possible(rule, prepared.table, prepared.slides)

    train_table, val_table = prepared.table.subset("train"), prepared.table.subset("val")
    if len(train_table) < 2:
        raise QprdError(
            "Training needs at least two patches.", where="--normal", fix="Ask for more patches."
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
        val_tumor = np.array([patch.label == "tumor" for patch in val_table.patches], np.bool_)
        val = ValidationPatches(val_images, val_tumor) if len(val_table) else None
        outcome = train_model(
            model,
            dataset,
            train_images,
            np.array([patch.label == "tumor" for patch in train_table.patches]),
            val=val,
            config=config,
            fabric=fabric,
            progress=progress,
            folder=cache,
        )

    counted = Counted(interrupted=outcome.interrupted)
    if rule.name == "fp-per-slide" and not outcome.interrupted:
        scorer = SlideScorer(
            model,
            mpp=config.mpp,
            patch_px=config.patch_px,
            patch_score=config.patch_score,
            min_tissue=config.min_tissue,
            batch_size=config.batch_size,
            fabric=fabric,
            progress=progress,
        )
        counted = count_false_positives(prepared.table, prepared.slides, prepared.open, scorer)
    validated = validate(
        outcome.val_scores,
        val_tumor,
        [patch.slide for patch in val_table.patches],
        rule,
        false_positives=counted.found,
        seed=config.seed,
    )
    reliability = None if validated.calibration is None else validated.calibration.reliability
    best = outcome.best
    notes = (
        *prepared.notes,
        *prepared.table.notes,
        *counted.notes,
        *validated.notes,
        *worth(outcome),
    )
    now = datetime.now(timezone.utc)
    info = BundleInfo(
        name=_bundle_name(now, config, layout.bundles),
        created=now,
        teacher=TeacherInfo.of(model.teacher),
        recipe=config.recipe,
        mpp=config.mpp,
        patch_px=config.patch_px,
        patch_score=config.patch_score,
        threshold=validated.threshold,
        calibration=validated.calibration,
        validation=validated.scores,
        classes={"tumor": config.tumor_class, "normal": config.normal_class},
        config=config.model_dump(mode="json"),
        metrics={
            "best_epoch": best.epoch,
            "epochs": len(outcome.history),
            "val_accuracy": best.val_accuracy,
            "val_auroc": best.val_auroc,
            "no_probability": validated.uncalibrated,
            "operating_point": None if validated.achieved is None else asdict(validated.achieved),
        },
        patches={
            f"{split}_{label}": count
            for table, split in ((train_table, "train"), (val_table, "val"))
            for (_, label), count in table.counts().items()
            if count
        },
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
        recipe=config.recipe,
        teacher=config.teacher,
        patches=_patch_counts(prepared.table),
        slides={split: list(_slide_names(prepared.table.subset(split))) for split in SPLITS},
        best_epoch=best.epoch,
        epochs=len(outcome.history),
        val_accuracy=best.val_accuracy,
        val_auroc=best.val_auroc,
        threshold=validated.threshold,
        operating_point=str(rule),
        achieved=validated.achieved,
        calibration=reliability,
        notes=tuple(dict.fromkeys(notes)),
        interrupted=counted.interrupted,
        seconds=time.perf_counter() - started,
    )


def _told(reliability: Reliability) -> str:
    """The figures of the probabilities in a line."""
    losses = {"Platt's curve": reliability.log_loss_platt}
    if reliability.log_loss_isotonic is not None:
        losses["isotonic"] = reliability.log_loss_isotonic
    compared = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return (
        f"Probability: expected calibration error {reliability.expected_calibration_error:.3f}, "
        f"Brier score {reliability.brier_score:.3f}, log loss: {compared} "
        f"({reliability.folds}-fold cross-validation by "
        f"{'slide' if reliability.by_slide else 'patch'}); {reliability.reason}."
    )


def worth(outcome: TrainingOutcome) -> list[str]:
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


def _slide_names(table: PatchTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recorded_name(patch.name) for patch in table.patches))


def _patch_counts(table: PatchTable) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in table.counts().items():
        if count:
            counts.setdefault(split, {})[label] = count
    return counts


def _bundle_name(now: datetime, config: TrainConfig, bundles: Path) -> str:
    """Time and teacher; numbered where another training ended in the same second."""
    name = f"{now:%Y%m%d-%H%M%S}-{config.teacher.replace(':', '-')}"
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(free for free in numbered if not (bundles / free).exists())
