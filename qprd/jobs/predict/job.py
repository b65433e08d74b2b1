"""``qprd predict``: from a bundle and the slides of a project to results and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qprd.errors import DiskError, QprdError
from qprd.events import is_logged
from qprd.files.atomic import disk_time
from qprd.files.claims import Claims
from qprd.files.layout import ProjectLayout
from qprd.files.lock import locked
from qprd.jobs.predict.delivery import Delivery
from qprd.jobs.predict.index import write_results_index
from qprd.jobs.predict.model import Model
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.queue import SlideQueue, Work
from qprd.jobs.predict.review_regions import RegionReport, mark_uncertain, require_threshold
from qprd.jobs.predict.slide_scores import log_slide
from qprd.jobs.predict.summary import PredictSummary, up_to_date
from qprd.jobs.predict.workers import process_count, workers
from qprd.jobs.write_back import WriteBackSummary
from qprd.progress import Progress
from qprd.qupath.entry_slides import name_list, select_entries
from qprd.qupath.project import Entry, Project
from qprd.ranks import this_rank
from qprd.results.folder import REVIEW, load_slide_result, save_review
from qprd.settings import PredictConfig

_LOG = logging.getLogger(__name__)

_NAMES_SHOWN = 5


def predict_project(
    project: Project,
    config: PredictConfig,
    *,
    bundle: Path | Model | None = None,
    write_back: bool = False,
    force: bool = False,
    progress: Progress,
) -> PredictSummary:
    """Score the slides of a project, save results and pictures, and write them back if asked.

    The arguments are those of `qprd.predict`; a loaded model keeps its device and precision.

    Slides whose results are up to date are not scored again. Any number of processes may predict
    in a project at once: each takes the next slide that nobody has claimed, and the last one to
    end does what needs all results. A slide that cannot be read is reported, and the others go on;
    a disk that is full stops all. However it ends, what was scored by then is in the index, and in
    the project if that was asked for.

    Raises:
        QprdError: nothing could be predicted at all, or not all results be saved.
    """
    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    if force and this_rank().count > 1:
        raise QprdError(
            "Processes of a launcher cannot score slides again together.",
            where="--force",
            fix="Start one process, with --devices N for several devices, or remove qprd/results.",
        )
    model = _model(layout, bundle, config)
    # What is recorded of a result is what scored it.
    config = config.model_copy(update={"precision": model.precision})
    entries = select_entries(project, config.images, config.exclude)
    # Before anything is scored, which replaces them.
    had_regions = [entry for entry in entries if (layout.result(entry.id) / REVIEW).is_file()]
    predictor = Predictor(model, config, progress)
    info = predictor.info
    require_threshold(config.uncertain, predictor.threshold)
    threshold = "none" if predictor.threshold is None else f"{predictor.threshold:.4g}"
    _LOG.info("Bundle %s, threshold %s, scoring by %s.", info.name, threshold, info.scoring.by)

    work = Work(project, config, entries, disk_time(layout.root) if force else None)
    delivery = Delivery(project, entries, progress) if write_back else None
    with Claims(project.path) as claims:
        queue = SlideQueue(work, predictor.inputs, claims)
        if current := len(queue.current):
            _LOG.info("%s", up_to_date(current, len(entries)))
        with _kept_if_it_ends_early(layout, predictor, queue, delivery):
            for entry in _scored(work, queue, predictor, model):
                if delivery is not None:
                    delivery.add(entry)
        elsewhere = queue.elsewhere()
        problems = [*queue.problems.values(), *queue.problems_elsewhere()]
        covered = queue.current
        if not (covered or elsewhere):
            raise QprdError(
                "None of the slides could be predicted.\n  " + "\n  ".join(problems[:10]),
                where=str(project.path),
                fix="Mend what is named above; qprd doctor checks the slides.",
            )

        index = _write_index(layout, predictor)
        results = tuple(load_slide_result(layout.result(entry.id)) for entry in covered)
        notes = list(predictor.notes)
        notes += (f"{slide.image}: {note}" for slide in results for note in slide.notes)
        marked: tuple[RegionReport, ...] = ()
        written: WriteBackSummary | None = None
        if elsewhere:
            written = None if delivery is None else delivery.write(queue.made())
        else:
            covered_ids = {entry.id for entry in covered}
            had_regions = [entry for entry in had_regions if entry.id in covered_ids]
            if had_regions and not config.uncertain:
                notes.append(
                    "regions to review of an earlier prediction are taken away, as --uncertain was "
                    f"not given: {name_list(had_regions, _NAMES_SHOWN)}"
                )
            marked, unmarked, why_fewer = _mark_regions(work, covered, predictor, progress)
            problems += unmarked
            notes += why_fewer
            if delivery is not None:
                ids = {entry.id for entry in had_regions} | {region.entry_id for region in marked}
                written = delivery.finish(covered, [entry for entry in covered if entry.id in ids])
    return PredictSummary(
        project=project.path,
        backend=project.backend,
        bundle=model.bundle,
        threshold=predictor.threshold,
        scoring=info.scoring.by,
        slides=results,
        problems=tuple(problems),
        notes=tuple(notes),
        index=index,
        write_back=written,
        seconds=time.perf_counter() - started,
        review=marked,
        scored=len(queue.scored),
        redrawn=len(queue.redrawn),
        current=current,
        elsewhere=tuple(entry.name for entry in elsewhere),
    )


def _model(layout: ProjectLayout, bundle: Path | Model | None, config: PredictConfig) -> Model:
    from qprd.bundle.reading import newest_bundle

    if isinstance(bundle, Model):
        return bundle
    return Model(
        newest_bundle(layout.bundles) if bundle is None else bundle,
        weights=config.weights,
        device=config.device,
        precision=config.precision,
    )


def _scored(work: Work, queue: SlideQueue, predictor: Predictor, model: Model) -> Iterator[Entry]:
    """Score what there is to score, on all devices; yields each slide once it is saved."""
    layout, left = ProjectLayout(work.project.path), {entry.id: entry for entry in queue.left}
    with workers(work, model, min(process_count(work.config), len(left))) as others:
        for entry in queue.score(predictor):
            yield entry
            yield from _logged(layout, (left[entry_id] for entry_id in others.scored()))
        at_last = (left[entry_id] for entry_id in others.scored(to_the_end=True))
        yield from _logged(layout, at_last)
        # Slides of workers that died.
        yield from queue.score(predictor)


def _logged(layout: ProjectLayout, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Log slides that other processes of this command have scored."""
    for entry in entries:
        if is_logged():
            log_slide(load_slide_result(layout.result(entry.id)), "scored")
        yield entry


@contextmanager
def _kept_if_it_ends_early(
    layout: ProjectLayout, predictor: Predictor, queue: SlideQueue, delivery: Delivery | None
) -> Iterator[None]:
    """Bring index and project up to date, as far as possible, when scoring is broken off."""
    try:
        yield
    except BaseException as error:
        if made := queue.made():
            with suppress(QprdError):
                _write_index(layout, predictor)
            with suppress(QprdError):
                if delivery is not None:
                    delivery.write(made)
        if isinstance(error, DiskError):
            raise _stopped(error, queue) from error
        raise


def _mark_regions(
    work: Work, covered: Sequence[Entry], predictor: Predictor, progress: Progress
) -> tuple[tuple[RegionReport, ...], list[str], list[str]]:
    """Replace the regions to review on all slides; without ``--uncertain`` there are none."""
    for entry in covered:
        save_review(ProjectLayout(work.project.path).result(entry.id), ())
    if not work.config.uncertain or predictor.threshold is None:
        return (), [], []
    return mark_uncertain(
        work.project,
        covered,
        predictor.info,
        predictor.threshold,
        work.config,
        tissue_class=predictor.tissue_class,
        progress=progress,
    )


def _write_index(layout: ProjectLayout, predictor: Predictor) -> Path:
    # One process after the other: the last one must have seen all results.
    with locked(layout.project, wait=True):
        return write_results_index(layout, predictor.info, threshold=predictor.threshold)


def _stopped(error: DiskError, queue: SlideQueue) -> QprdError:
    """The error for a disk that got full, which says what there is and what is missing."""
    done, left = queue.scored, [entry for entry in queue.left if entry is not queue.at]
    at = "" if queue.at is None else f" at {queue.at.name}"
    saved = f"saved are {name_list(done, _NAMES_SHOWN)}" if done else "nothing was saved"
    rest = f"; not scored any more are {name_list(left, _NAMES_SHOWN)}" if left else ""
    return DiskError(
        f"{error.problem} The prediction stopped{at}: {saved}{rest}.",
        where=error.where,
        fix=f"{error.fix} Slides that are saved are not scored again.",
        exit_code=error.exit_code,
    )
