"""``qprd train``: from the annotations of a project to a bundle."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.bundle.ancestry import limited
from qprd.bundle.names import new_bundle_name
from qprd.checked import Rule
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.train.parent import start_training
from qprd.jobs.train.patches import prepare_patches
from qprd.jobs.train.records import patch_cache, require_space, save_records, writing_cache
from qprd.jobs.train.summary import TrainSummary
from qprd.jobs.train.validation import require_possible, validate
from qprd.progress import Progress
from qprd.qupath.entry_slides import recorded_name
from qprd.qupath.project import Project
from qprd.sampling.splits import SPLITS
from qprd.sampling.table import PatchTable
from qprd.scoring.scorer import SlideScorer
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.training.loop import TrainingOutcome

#: Validation AUROC below which a model is said to be of no use.
_WORTHLESS_AUROC = 0.6


def train_project(
    project: Project,
    config: TrainConfig,
    *,
    patches: Path | None = None,
    parent: Path | None = None,
    progress: Progress,
) -> TrainSummary:
    """Sample patches from a project's annotations, train on them, save a bundle.

    Args:
        project: Read only.
        config: Settings.
        patches: A patch table to use instead of sampling.
        parent: A bundle to go on from: its weights are where this training starts, and its slides
            keep their splits. See `qprd.training.recipes` for what else is kept.
        progress: Shows what takes long.

    Raises:
        QprdError: something of the user's is missing or wrong; no bundle was written.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
    """
    from qprd.bundle.records import BundleInfo, NetworkInfo, TeacherInfo, TrainingInfo
    from qprd.bundle.writing import save_bundle
    from qprd.device import make_fabric
    from qprd.model.inference import for_inference
    from qprd.sampling.dataset import PatchDataset, decode_all
    from qprd.scoring.by_field import sees_far
    from qprd.training.loop import ValidationPatches
    from qprd.training.recipes import train_model

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    # What can fail at once comes before what takes long.
    fabric = make_fabric(config.device, config.precision)
    start = start_training(config, parent)
    model = start.model
    require_space(layout.root, model)
    prepared = prepare_patches(project, config, patches, progress, earlier=start.splits())
    start.refuse_leak(prepared.table)
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
            goes_on=start.parent is not None,
        )

    network = for_inference(model)
    far = sees_far(network, fabric)
    scorer = SlideScorer(
        network,
        mpp=config.mpp,
        patch_px=config.patch_px,
        patch_score=config.patch_score,
        min_tissue=config.min_tissue,
        batch_size=config.batch_size,
        fabric=fabric,
        progress=progress,
        scoring="patches" if far else config.scoring,
    )
    validation = validate(
        outcome.val_scores,
        prepared.table,
        prepared.slides,
        prepared.open,
        scorer,
        rule=rule,
        seed=config.seed,
        interrupted=outcome.interrupted,
    )
    calibration = validation.scoring.calibration
    reliability = None if calibration is None else calibration.reliability
    best = outcome.best
    notes = (
        *prepared.notes,
        *prepared.table.notes,
        *validation.notes,
        *quality_notes(outcome),
        *([_sees_far_note(config.teacher)] if far and config.scoring == "fields" else []),
    )
    training_slides, validation_slides = start.with_earlier(
        _slide_names(train_table), _slide_names(val_table)
    )
    seen, review = prepared.seen(config), prepared.review_counts(config)
    now = datetime.now(timezone.utc)
    info = BundleInfo(
        name=new_bundle_name(now, config.teacher, layout.bundles),
        created=now,
        network=NetworkInfo(
            TeacherInfo.of(model.teacher), config.recipe, config.mpp, config.patch_px
        ),
        scoring=validation.scoring,
        training=TrainingInfo(
            config=config.model_dump(mode="json"),
            classes={"tumor": config.tumor_class, "normal": config.normal_class},
            patches={
                f"{split}_{label}": count
                for table, split in ((train_table, "train"), (val_table, "val"))
                for (_, label), count in table.counts().items()
                if count
            },
            slides=training_slides,
            validation_slides=validation_slides,
            metrics={
                "best_epoch": best.epoch,
                "epochs": len(outcome.history),
                "val_accuracy": validation.accuracy,
                "val_auroc": validation.auroc,
                "no_probability": validation.no_probability,
                "operating_point": None
                if validation.achieved is None
                else asdict(validation.achieved),
            },
            ancestors=start.ancestors,
            annotations=limited(seen),
            review=review,
        ),
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
        val_accuracy=validation.accuracy,
        val_auroc=validation.auroc,
        threshold=validation.scoring.threshold,
        operating_point=str(rule),
        achieved=validation.achieved,
        calibration=reliability,
        notes=tuple(dict.fromkeys(notes)),
        interrupted=outcome.interrupted or validation.interrupted,
        seconds=time.perf_counter() - started,
        review=review,
        parent=None if start.parent is None else start.parent.name,
        changes=start.changes(seen),
    )


def quality_notes(outcome: TrainingOutcome) -> list[str]:
    """Warnings about a model that has hardly learned anything, or whose training diverged."""
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


def _sees_far_note(teacher: str) -> str:
    return (
        f"the teacher {teacher} judges a patch by averages over all that it is shown: slides are "
        "scored patch by patch, which is slower"
    )


def _slide_names(table: PatchTable) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recorded_name(patch.name) for patch in table.patches))


def _patch_counts(table: PatchTable) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in table.counts().items():
        if count:
            counts.setdefault(split, {})[label] = count
    return counts
