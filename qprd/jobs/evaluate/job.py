"""The job of ``qprd evaluate``: compare the predictions of a project with its annotations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.errors import QprdError
from qprd.evaluation.levels import lesion_metrics, patch_metrics, pixel_metrics, slide_metrics
from qprd.evaluation.mistakes import worst_of_slides
from qprd.files.layout import ProjectLayout
from qprd.given_settings import stored_train_config
from qprd.jobs.evaluate.page import publish
from qprd.jobs.evaluate.slide import (
    MISTAKES_SHOWN,
    EvaluatedSlide,
    drawn_by_people,
    evaluate_slide,
    is_annotated,
)
from qprd.jobs.evaluate.split import EvaluatedSplit, choose_slides
from qprd.jobs.evaluate.summary import EvaluateSummary, coverage_notes
from qprd.jobs.predict.model import Model, bundle_of
from qprd.progress import Progress, progress_bars
from qprd.qupath.entry_slides import name_list, select_entries
from qprd.qupath.image_annotations import ImageAnnotations, read_image_annotations
from qprd.qupath.project import Entry, Project
from qprd.results.evaluation import EVALUATION_PAGE
from qprd.results.folder import SlideResult, load_slide_result
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo


def evaluate(
    project: Project,
    model: Model | str | Path | None = None,
    *,
    split: EvaluatedSplit | None = None,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    unannotated_normal: bool | None = None,
    assume_mpp: float | None = None,
    progress: bool | Progress = True,
) -> EvaluateSummary:
    """Compare the results of a project with its annotations; also writes a page.

    A slide that cannot be read, or has no results of the bundle, is reported and left out.

    Args:
        project: Only read.
        model: Whose predictions; None takes the newest bundle of the project.
        split: ``test``, ``val`` or ``all``; None takes the test slides, or without any the
            validation slides.
        images: Names of the only images to use; empty for all.
        exclude: Names of images to leave out, which outweighs ``images``.
        unannotated_normal: Whether slides without annotations have no tumor; None takes the
            setting of the training.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel; None
            takes that of the prediction.
        progress: False shows no bars.

    Raises:
        QprdError: there is nothing to evaluate.

    Examples:
        >>> qprd.evaluate(project, split="val").patch.auroc > 0.5
        True
    """
    from qprd.bundle.reading import newest_bundle, read_bundle_info

    started, bars = time.perf_counter(), progress_bars(progress)
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    layout = ProjectLayout(project.path)
    layout.require_writable()
    info = read_bundle_info(newest_bundle(layout.bundles) if model is None else bundle_of(model))
    config = _config(info, unannotated_normal, assume_mpp)
    entries = select_entries(project, images, exclude)
    drawn = read_image_annotations(project, entries)
    annotated = [entry for entry in entries if _has_truth(entry, drawn, config)]
    known = {entry.id for entry in annotated}
    bare = [entry for entry in entries if entry.id not in known]
    chosen = choose_slides(annotated, bare, info, split)

    problems, readable = [], []
    for entry in chosen.entries:
        if (lost := drawn.unreadable.get(entry.id)) is None:
            readable.append(entry)
        else:
            problems.append(lost.error.line_about(entry.name))
    usable = _with_results(readable, layout, info, problems)
    threshold, threshold_notes = _threshold(usable, info)
    slides: list[EvaluatedSlide] = []
    with bars.task("comparing", len(usable)) as task:
        for entry, _ in usable:
            try:
                people_drew = drawn_by_people(drawn.annotations[entry.id])
                folder = layout.result(entry.id)
                slides.append(
                    evaluate_slide(
                        entry, people_drew, folder, info, config=config, threshold=threshold
                    )
                )
            except QprdError as error:
                problems.append(error.line_about(entry.name))
            task.advance()
    if not slides:
        raise QprdError(
            f"None of the {chosen.split} slides can be evaluated.\n  " + "\n  ".join(problems[:10]),
            where=str(layout.results),
            fix="Mend what is named above, or choose other slides with --split.",
        )
    notes = [
        *chosen.notes,
        *drawn.notes(chosen.entries),
        *threshold_notes,
        *(note for slide in slides for note in slide.notes),
    ]
    if unscored := [slide.entry for slide in slides if slide.report.slide_score is None]:
        names = name_list(unscored)
        notes.append(f"without a slide score, and so left out of the slide figures: {names}")
    notes += coverage_notes(slides)
    compared = [slide.comparison for slide in slides]
    with bars.task("measuring", 1) as task:
        summary = EvaluateSummary(
            project=project.path,
            backend=project.backend,
            bundle=info.name,
            split=chosen.split,
            created=created,
            threshold=threshold,
            patch=patch_metrics(
                compared, threshold=threshold, probability_of=info.scoring.probability_of
            ),
            slide=slide_metrics(compared),
            lesion=lesion_metrics(compared),
            pixel=pixel_metrics(compared),
            slides=tuple(slides),
            false_positives=worst_of_slides([s.false_positives for s in slides], MISTAKES_SHOWN),
            misses=worst_of_slides([s.misses for s in slides], MISTAKES_SHOWN),
            notes=tuple(dict.fromkeys(notes)),
            problems=tuple(problems),
            page=layout.results / EVALUATION_PAGE,
            seconds=time.perf_counter() - started,
        )
        task.advance()
    publish(summary, layout, info, progress=bars)
    return summary


def _has_truth(entry: Entry, drawn: ImageAnnotations, config: TrainConfig) -> bool:
    """Whether anything says what is tumor on a slide, as far as it can be read.

    A slide whose annotations cannot be read stays in its split: the validation slides must not
    stand in for a test slide that cannot be measured.
    """
    if entry.id not in drawn.unreadable:
        return is_annotated((one.class_name for one in drawn.annotations[entry.id]), config)
    classes = drawn.unreadable[entry.id].classes
    return classes is None or is_annotated(classes, config)


def _config(
    info: BundleInfo, unannotated_normal: bool | None, assume_mpp: float | None
) -> TrainConfig:
    """The classes and rules of the training, which decided what is normal."""
    config = stored_train_config(info.training.config, where=info.name)
    update: dict[str, object] = {"assume_mpp": assume_mpp}
    if unannotated_normal is not None:
        update["unannotated_normal"] = unannotated_normal
    return config.model_copy(update=update)


def _with_results(
    entries: Sequence[Entry], layout: ProjectLayout, info: BundleInfo, problems: list[str]
) -> list[tuple[Entry, SlideResult]]:
    """The slides that have results of this bundle; the others are added to the problems."""
    usable = []
    for entry in entries:
        try:
            result = load_slide_result(layout.result(entry.id))
            if result.bundle != info.name:
                raise QprdError(
                    f"Its results are of the bundle {result.bundle}, not of {info.name}.",
                    fix="Run qprd predict again, or name that bundle with --bundle DIR.",
                )
            if result.scoring != info.scoring.by:
                raise QprdError(
                    f"It was scored by {result.scoring}; the bundle's threshold is for scores by "
                    f"{info.scoring.by}.",
                    fix="Run qprd predict again.",
                )
        except QprdError as error:
            problems.append(error.line_about(entry.name))
        else:
            usable.append((entry, result))
    return usable


def _threshold(
    usable: Sequence[tuple[Entry, SlideResult]], info: BundleInfo
) -> tuple[float | None, list[str]]:
    """The threshold for cells, and notes on contours that were drawn at another one."""
    drawn_at: dict[float | None, list[Entry]] = {}
    for entry, result in usable:
        drawn_at.setdefault(result.threshold, []).append(entry)
    threshold, notes = info.scoring.threshold, []
    if threshold is None and len(drawn_at) == 1:
        (threshold,) = drawn_at
        if threshold is not None:
            notes.append(
                f"the bundle has no threshold, so cells are judged at {threshold:.4g}, which was "
                "given to qprd predict"
            )
    for value, members in drawn_at.items():
        names = name_list(members)
        if value is None:
            notes.append(f"predicted without a threshold, so without contours: {names}")
        elif value != threshold:
            own = "has none" if threshold is None else f"has {threshold:.4g}"
            notes.append(
                f"the contours were drawn at the threshold {value:.4g}, while the bundle {own}: "
                f"pixel figures are for the former, patch figures for the latter ({names})"
            )
    return threshold, notes
