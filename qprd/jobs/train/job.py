"""``qprd train``: from the annotations of a project to a bundle."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.ancestry import without_long_lists
from qprd.bundle.names import PATCHES_FILE
from qprd.checked import Rule
from qprd.errors import ExitCode, QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.train.parent import StartingPoint, starting_point
from qprd.jobs.train.patches import PreparedPatches, prepare_patches
from qprd.jobs.train.records import require_space, save_records
from qprd.jobs.train.run import Run, RunRecord, made_from, training_run
from qprd.jobs.train.summary import Origin, TrainSummary
from qprd.jobs.train.validation import Validation, require_possible, validate
from qprd.progress import Progress
from qprd.qupath.project import Project
from qprd.sampling.splits import SPLITS
from qprd.sampling.table import PatchTable
from qprd.scoring.scorer import SlideScorer
from qprd.settings import OF_STUDENTS, TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.bundle.records import ScoringInfo, TrainingInfo
    from qprd.model.network import Network
    from qprd.model.teacher import Teacher
    from qprd.sampling.dataset import SlideReadError
    from qprd.training.loop import TrainingOutcome

#: Validation AUROC below which a model is said to be of no use.
_USELESS_AUROC = 0.6


def train_project(
    project: Project,
    config: TrainConfig,
    *,
    patches: Path | None = None,
    parent: Path | None = None,
    resumed: Run | None = None,
    finish: bool = False,
    progress: Progress,
) -> TrainSummary:
    """Sample patches from a project's annotations, train on them, save a bundle.

    The arguments are those of `qprd.train`. A parent's slides keep their splits, and under the
    recipe ``paper`` its weights are where this training starts. A run that is resumed has its own
    parent and patch table.

    Raises:
        QprdError: something of the user's is missing or wrong; no bundle was written.
        KeyboardInterrupt: it was stopped; its text says how to go on, if there is something kept.
    """
    from qprd.device import end_others, make_fabric
    from qprd.jobs.train.fit import fit_model, read_patches
    from qprd.jobs.train.follow import lead
    from qprd.model.registry import require_added

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    # What can fail at once comes before what takes long.
    fabric = make_fabric(config.device, config.precision, config.devices)
    if resumed is not None:
        parent = resumed.parent(project.path)
        patches = None if resumed.record().sampled else resumed.folder / PATCHES_FILE
    start = starting_point(config, parent)
    require_added(config.head, config.loss)
    _require_scoring(config, start.teacher)
    rule = Rule.parse(config.operating_point)

    def checked(prepared: PreparedPatches) -> PreparedPatches:
        start.refuse_leak(prepared.identities, prepared.table)
        require_possible(rule, prepared.table, prepared.slides)
        return prepared

    def without(prepared: PreparedPatches, error: SlideReadError) -> PreparedPatches:
        return checked(prepared.without(error.entry_id, error, patches, config))

    prepared = checked(prepare_patches(project, config, patches, progress, earlier=start.use_of))
    with training_run(project.path, config, resumed) as run, ExitStack() as stack:
        prepared = read_patches(prepared, without, config, run, progress)
        n_tumor = int(prepared.table.subset("train").is_tumor.sum())
        model = start.model(config, n_tumor)
        if resumed is None:
            require_space(layout.root, model)
        record = RunRecord(
            config=config.model_dump(mode="json"),
            parent=None if parent is None else _relative(parent, project.path.parent),
            sampled=patches is None,
            made_from=made_from(
                prepared.table,
                prepared.identities,
                prepared.seen(),
                teacher_sha256=start.teacher.weights_sha256,
                parent_sha256=start.ancestors[0].sha256 if start.ancestors else None,
            ),
        )
        run.begin(record, prepared.table)
        # A bundle that is saved already is trained no further: records and report are of it.
        finish = finish or run.saved(layout.bundles) is not None
        stack.callback(end_others, fabric)
        lead(fabric, run, config, finish=finish)
        outcome = fit_model(
            model, prepared.table, config, run, fabric=fabric, progress=progress, finish=finish
        )
        scorer = _scorer(model, config, fabric, progress)
        validation = validate(
            outcome.val_scores,
            prepared.table,
            prepared.slides,
            prepared.open,
            scorer,
            rule=rule,
            seed=config.seed,
        )
        training = _training_info(start, prepared, config, outcome, validation)
        bundle = run.saved(layout.bundles)
        if bundle is None:
            bundle = _save(
                model,
                config,
                run,
                layout.bundles,
                scoring=validation.scoring,
                training=training,
            )
        fabric.broadcast(str(bundle.resolve()))
        stack.pop_all()
        save_records(bundle, prepared.table, outcome)

    notes = [*start.notes, *prepared.notes, *prepared.table.notes, *validation.notes]
    notes += quality_notes(validation.figures.auroc, n_tumor=n_tumor, diverged=outcome.diverged)
    notes += _ignored_settings(config, model)
    if scorer.scoring == "patches" != config.scoring:
        notes.append(
            f"the teacher {config.teacher} judges a place by all that it is shown: slides are "
            "scored patch by patch, which is slower than from large fields"
        )
    return TrainSummary(
        project=project.path,
        backend=project.backend,
        bundle=bundle,
        recipe=config.recipe,
        teacher=config.teacher,
        patches=_patch_counts(prepared.table),
        slides={split: [s.name for s in prepared.slides_in(split)] for split in SPLITS},
        origin=Origin(
            parent=None if start.parent is None else start.parent.name,
            changes=start.changes(prepared.seen()),
            review=training.review,
        ),
        best_epoch=None if outcome.best is None else outcome.best.epoch,
        epochs=len(outcome.history),
        validation=validation.figures,
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - started,
    )


def _save(
    model: Network,
    config: TrainConfig,
    run: Run,
    bundles: Path,
    *,
    scoring: ScoringInfo,
    training: TrainingInfo,
) -> Path:
    """Save the bundle of a training, which is noted in its run before."""
    from qprd.bundle.reading import next_number
    from qprd.bundle.records import BundleInfo, NetworkInfo, TeacherInfo
    from qprd.bundle.writing import new_bundle_folder, save_bundle

    now = datetime.now(timezone.utc)
    teacher = TeacherInfo.of(model.teacher)
    with new_bundle_folder(bundles, now, config.teacher) as bundle:
        info = BundleInfo(
            name=bundle.name,
            network=NetworkInfo(teacher, config.recipe, model.kind, config.mpp, config.patch_px),
            scoring=scoring,
            training=training,
            number=next_number(bundles),
            created=now,
        )
        run.will_save(bundle)
        save_bundle(bundle, model, info)
    return bundle


def _relative(path: Path, folder: Path) -> str:
    """A path relative to a folder that holds it, or as it is."""
    resolved, root = path.resolve(), folder.resolve()
    return str(resolved.relative_to(root) if resolved.is_relative_to(root) else resolved)


def _require_scoring(config: TrainConfig, teacher: Teacher) -> None:
    if config.scoring == "fields" and teacher.sees_all:
        raise QprdError(
            f"Slides cannot be scored from fields with the teacher {teacher.name}: it relates all "
            "places of an image to each other, and would judge a patch in a large field by other "
            "surroundings than in the training.",
            where="--scoring fields",
            fix="Leave it out, or give --scoring patches.",
            exit_code=ExitCode.USAGE,
        )


def _scorer(model: Network, config: TrainConfig, fabric: Fabric, progress: Progress) -> SlideScorer:
    """Score slides as the settings say, but patch by patch if the network sees far."""
    from qprd.model.inference import for_inference
    from qprd.scoring.by_field import sees_far

    network = for_inference(model)
    by_patch = config.scoring == "patches" or model.teacher.sees_all
    return SlideScorer(
        network,
        mpp=config.mpp,
        patch_px=config.patch_px,
        patch_score=config.patch_score,
        min_tissue=config.min_tissue,
        batch_size=config.batch_size,
        fabric=fabric,
        progress=progress,
        scoring="patches" if by_patch or sees_far(network, fabric) else "fields",
    )


def _training_info(
    start: StartingPoint,
    prepared: PreparedPatches,
    config: TrainConfig,
    outcome: TrainingOutcome,
    validation: Validation,
) -> TrainingInfo:
    """The training as the bundle records it."""
    from qprd.bundle.records import TrainingInfo

    counts, figures = _patch_counts(prepared.table), validation.figures
    training_slides, validation_slides = start.with_earlier(
        *(prepared.slides_in(split) for split in ("train", "val"))
    )
    return TrainingInfo(
        config=config.model_dump(mode="json"),
        classes={"tumor": config.tumor_class, "normal": config.normal_class},
        patches={
            f"{split}_{label}": count
            for split in ("train", "val")
            for label, count in counts.get(split, {}).items()
        },
        slides=training_slides,
        validation_slides=validation_slides,
        metrics={
            "best_epoch": None if outcome.best is None else outcome.best.epoch,
            "epochs": len(outcome.history),
            "val_accuracy": figures.accuracy,
            "val_auroc": figures.auroc,
            "no_probability": validation.no_probability,
            "operating_point": None if figures.achieved is None else asdict(figures.achieved),
        },
        ancestors=start.ancestors,
        annotations=without_long_lists(prepared.seen()),
        review=prepared.review_counts(),
    )


def quality_notes(auroc: float | None, *, n_tumor: int, diverged: bool) -> list[str]:
    """Warnings about a model that has hardly learned anything, or whose training diverged.

    ``auroc`` is that of the validation patches, None if undefined, and ``n_tumor`` the number of
    tumor training patches.
    """
    notes = []
    if not n_tumor:
        notes.append(
            "without tumor patches the model finds what is unlike the normal tissue that it saw, "
            "tumor or not, and its figures are of little use: annotate a few tumor regions"
        )
    if diverged:
        notes.append(
            "the training diverged after its last epoch; the best one before is kept. Train with a "
            "lower --lr"
        )
    if auroc is not None and auroc < _USELESS_AUROC:
        notes.append(
            f"the model hardly separates tumor from normal on the validation patches (AUROC "
            f"{auroc:.2f}): do not use its contours. More annotations may help"
        )
    return notes


def _ignored_settings(config: TrainConfig, model: Network) -> list[str]:
    """A note on settings that were changed and have no effect on such a model."""
    no_student = model.kind == "discriminant"
    defaults = TrainConfig(recipe=config.recipe, teacher=config.teacher)
    changed = [
        f"--{name.replace('_', '-')}"
        for name in (OF_STUDENTS if no_student else ("head",))
        if getattr(config, name) != getattr(defaults, name)
    ]
    if not changed:
        return []
    why = (
        "as the recipe best trains no student on tumor patches; use --recipe paper for one"
        if no_student
        else "as only the recipe best has a head, and only with tumor patches"
    )
    return [f"{', '.join(changed)}: without effect, {why}"]


def _patch_counts(table: PatchTable) -> dict[str, dict[str, int]]:
    """Numbers of patches by split and label, without those that are 0."""
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in table.counts().items():
        if count:
            counts.setdefault(split, {})[label] = count
    return counts
