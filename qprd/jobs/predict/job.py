"""``qprd predict``: from a bundle and the slides of a project to results and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import DiskError, QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.predict.index import write_results_index
from qprd.jobs.predict.model import Model
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.review_regions import (
    RegionReport,
    describe_regions,
    mark_uncertain,
    require_threshold,
)
from qprd.jobs.predict.slide_scores import save_slide
from qprd.jobs.write_back import WriteBackSummary, write_back_entries
from qprd.names import counted
from qprd.progress import Progress
from qprd.qupath.entry_slides import name_list, open_slide, select_entries
from qprd.qupath.project import Entry, Project
from qprd.results.folder import SlideResult
from qprd.settings import PredictConfig, Scoring

_LOG = logging.getLogger(__name__)

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class PredictSummary:
    """What a prediction did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        threshold: Raw score that was used; None if there is none.
        scoring: Scored from large fields, or patch by patch.
        slides: Figures of each slide that was scored.
        problems: Image name and reason of each slide that was not.
        notes: What the user should know of the others.
        index: The page with all pictures.
        write_back: What was written into the project, None if that was not asked for.
        seconds: Time spent.
        review: Regions marked for review, in their order.
    """

    project: Path
    backend: str
    bundle: Path
    threshold: float | None
    scoring: Scoring
    slides: tuple[SlideResult, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    index: Path
    write_back: WriteBackSummary | None
    seconds: float
    review: tuple[RegionReport, ...] = ()

    @property
    def failed(self) -> int:
        """Slides that could not be scored or written back."""
        return len(self.problems) + (self.write_back.failed if self.write_back else 0)

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [
            f"{slide.image}: {slide.score_text}, {counted(slide.contours, 'contour')}, "
            f"{slide.tumor_um2 / 1e6:.2f} of {slide.tissue_um2 / 1e6:.2f} mm² tissue"
            for slide in self.slides
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems]
        if self.threshold is None:
            lines.append(
                "The bundle has no threshold, so there are no contours: give --threshold or "
                "--operating-point."
            )
        lines.append(f"Predicted {counted(len(self.slides), 'slide')} in {self.seconds:.0f} s.")
        if self.review:
            lines.append(describe_regions(self.review))
        if self.write_back is not None:
            lines += self.write_back.lines()
        lines.append(f"Pictures: {self.index}")
        return lines


def predict_project(
    project: Project,
    config: PredictConfig,
    *,
    bundle: Path | Model | None = None,
    write_back: bool = False,
    progress: Progress,
) -> PredictSummary:
    """Score the slides of a project, save results and pictures, then write them back if asked.

    The arguments are those of `qprd.predict`; a loaded model keeps its device and precision.

    A slide that cannot be read is reported, and the others go on; a disk that is full stops all.

    Raises:
        QprdError: nothing could be predicted at all, or not all results be saved.
    """
    from qprd.bundle.reading import newest_bundle

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    if isinstance(bundle, Model):
        model = bundle
    else:
        model = Model(
            newest_bundle(layout.bundles) if bundle is None else bundle,
            weights=config.weights,
            device=config.device,
            precision=config.precision,
        )
    entries = select_entries(project, config.images, config.exclude)
    predictor = Predictor(model, config, progress)
    require_threshold(config.uncertain, predictor.threshold)
    threshold = "none" if predictor.threshold is None else f"{predictor.threshold:.4g}"
    _LOG.info(
        "Bundle %s, threshold %s, scoring by %s.",
        predictor.info.name,
        threshold,
        predictor.info.scoring.by,
    )

    problems: list[str] = []
    scored: list[Entry] = []
    results: list[SlideResult] = []
    notes = list(predictor.notes)
    for position, entry in enumerate(entries, start=1):
        try:
            annotations = project.annotations(entry) if predictor.tissue_class else ()
            with open_slide(entry, assume_mpp=config.assume_mpp) as slide:
                found = predictor.score(slide, entry.name, entry, annotations)
            notes += (f"{entry.name}: {note}" for note in found.notes)
            results.append(save_slide(found, layout.result(entry.id)))
            scored.append(entry)
        except DiskError as error:
            raise _stopped(error, entry, saved=scored, left=entries[position:]) from error
        except QprdError as error:
            problems.append(error.line_about(entry.name))
    if not scored:
        raise QprdError(
            "None of the slides could be predicted.\n  " + "\n  ".join(problems[:10]),
            where=str(project.path),
        )
    marked: tuple[RegionReport, ...] = ()
    if config.uncertain and predictor.threshold is not None:
        marked, unmarked, why_fewer = mark_uncertain(
            project,
            scored,
            predictor.info,
            predictor.threshold,
            config,
            tissue_class=predictor.tissue_class,
            progress=progress,
        )
        problems += unmarked
        notes += why_fewer
    index = write_results_index(
        layout, predictor.info, threshold=predictor.threshold, date=predictor.date
    )
    written = None
    if write_back:
        written = write_back_entries(project, scored, progress=progress)
    return PredictSummary(
        project=project.path,
        backend=project.backend,
        bundle=model.bundle,
        threshold=predictor.threshold,
        scoring=predictor.info.scoring.by,
        slides=tuple(results),
        problems=tuple(problems),
        notes=tuple(notes),
        index=index,
        write_back=written,
        seconds=time.perf_counter() - started,
        review=marked,
    )


def _stopped(
    error: DiskError, entry: Entry, *, saved: Sequence[Entry], left: Sequence[Entry]
) -> QprdError:
    """The error for a disk that got full, which says what there is and what is missing."""
    done = f"saved are {name_list(saved, _NAMES_SHOWN)}" if saved else "nothing was saved"
    rest = f"; not scored any more are {name_list(left, _NAMES_SHOWN)}" if left else ""
    return DiskError(
        f"{error.problem} The prediction stopped at {entry.name}: {done}{rest}.",
        where=error.where,
        fix=f"{error.fix} Slides that are saved can be left out with --exclude NAME.",
        exit_code=error.exit_code,
    )
