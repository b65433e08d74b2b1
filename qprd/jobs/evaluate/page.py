"""The evaluation as files: the page with curves and crops, its figures as JSON, and the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qprd import __version__
from qprd.evaluation.worst import Mistake
from qprd.files.layout import ProjectLayout
from qprd.jobs.evaluate.slide import EvaluatedSlide
from qprd.jobs.evaluate.summary import (
    EvaluateSummary,
    figure_tables,
    shown_number,
    slide_rows,
)
from qprd.jobs.predict.index import EVALUATION_JSON, write_results_index
from qprd.jobs.reporting import write_json_object
from qprd.progress import Progress
from qprd.qupath.entry_slides import open_slide
from qprd.review import evaluation_plots
from qprd.review.crops import crop_jpeg
from qprd.review.evaluation_page import (
    EvaluationContent,
    MistakeCard,
    Plot,
    write_evaluation_page,
)
from qprd.review.heatmap import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qprd.bundle.bundle import BundleInfo

#: Edge of a crop in its own pixels, and in patches.
_CROP_PX = 320
_CROP_PATCHES = 3.0
_PLOT_DPI = 110


def publish(
    summary: EvaluateSummary,
    layout: ProjectLayout,
    info: BundleInfo,
    *,
    progress: Progress,
) -> None:
    """Write the page, the same figures as JSON beside it, and the index that links to it.

    Raises:
        QprdError: one of them cannot be written.
    """
    chosen = (summary.false_positives, summary.misses)
    with progress.task("drawing the page", sum(map(len, chosen)) + 1) as task:
        false_positives, misses = (
            _cards(mistakes, summary.slides, info, task.advance) for mistakes in chosen
        )
        plots = _plots(summary)
        task.advance()
    content = EvaluationContent(
        split=summary.split,
        facts={
            "Bundle": summary.bundle,
            "Threshold": shown_number(summary.threshold),
            "Slides": str(len(summary.slides)),
            "Date": summary.created,
            "qprd": __version__,
        },
        warnings=(*summary.notes, *(f"not evaluated: {p}" for p in summary.problems)),
        tables=tuple(figure_tables(summary.measured)),
        plots=plots,
        slides=tuple(slide_rows(summary)),
        false_positives=false_positives,
        misses=misses,
        no_mistakes="Without a threshold nothing is called tumor or normal."
        if summary.threshold is None
        else "There are none.",
    )
    write_evaluation_page(layout.results, content)
    write_json_object(layout.results / EVALUATION_JSON, summary.report())
    thresholds = {slide.threshold for slide in summary.slides}
    write_results_index(
        layout,
        info,
        threshold=thresholds.pop() if len(thresholds) == 1 else info.threshold,
        date=max(slide.predicted for slide in summary.slides),
    )


def _cards(
    mistakes: Sequence[tuple[int, Mistake]],
    slides: Sequence[EvaluatedSlide],
    info: BundleInfo,
    advance: Callable[[], None],
) -> tuple[MistakeCard, ...]:
    """Crops of mistakes, in their order; slides are opened one after the other."""
    cards: dict[int, MistakeCard] = {}
    for index in sorted({index for index, _ in mistakes}):
        evaluated = slides[index]
        edge_px = _CROP_PATCHES * max(info.patch_px * info.mpp / evaluated.mpp, evaluated.cell_px)
        downsample = edge_px / _CROP_PX
        half = evaluated.cell_px / 2
        with open_slide(evaluated.entry, assume_mpp=evaluated.mpp) as slide:
            for place, (of_slide, mistake) in enumerate(mistakes):
                if of_slide != index:
                    continue
                x, y = mistake.x, mistake.y
                left, top = x - edge_px / 2, y - edge_px / 2
                cards[place] = MistakeCard(
                    slide=evaluated.entry.name,
                    x_px=x,
                    y_px=y,
                    x_um=x * evaluated.mpp,
                    y_um=y * evaluated.mpp,
                    score=_score(mistake.score, info),
                    jpeg=crop_jpeg(
                        slide.read_downsampled(left, top, _CROP_PX, _CROP_PX, downsample),
                        left=left,
                        top=top,
                        downsample=downsample,
                        cell=(x - half, y - half, x + half, y + half),
                        drawn=evaluated.tumor,
                    ),
                )
                advance()
    return tuple(cards[place] for place in sorted(cards))


def _score(score: float, info: BundleInfo) -> str:
    if info.calibration is None:
        return f"score {score:.3f}"
    return f"score {score:.3f}, probability {float(info.calibration.probability(score)):.3f}"


def _plots(summary: EvaluateSummary) -> tuple[Plot, ...]:
    drawn: tuple[tuple[str, Figure | str], ...] = (
        ("ROC", _roc(summary)),
        ("Precision and recall", _precision_recall(summary)),
        ("FROC", _froc(summary)),
        ("Calibration", _reliability(summary)),
    )
    return tuple(
        Plot(title, None, what)
        if isinstance(what, str)
        else Plot(title, figure_png(what, dpi=_PLOT_DPI))
        for title, what in drawn
    )


def _roc(summary: EvaluateSummary) -> Figure | str:
    measured, patch = summary.measured, summary.measured.patch
    curves = {
        f"{what}: AUROC {section.value('auroc'):.3f}": curve
        for what, curve, section in (
            ("patches", measured.patch_roc, patch),
            ("slides", measured.slide_roc, measured.slide),
        )
        if curve is not None
    }
    if not curves:
        return patch.figures["auroc"].reason or ""
    found, kept = patch.value("sensitivity"), patch.value("specificity")
    at = None if found is None or kept is None else (1 - kept, found)
    return evaluation_plots.roc_figure(curves, operating_point=at)


def _precision_recall(summary: EvaluateSummary) -> Figure | str:
    measured, patch = summary.measured, summary.measured.patch
    curve = measured.patch_precision_recall
    if curve is None:
        return patch.figures["average_precision"].reason or ""
    tumor, normal = patch.counts["tumor"], patch.counts["normal"]
    found, kept = patch.value("sensitivity"), patch.value("specificity")
    at = None
    if found and kept is not None:
        at = found, found * tumor / (found * tumor + (1 - kept) * normal)
    return evaluation_plots.precision_recall_figure(
        curve,
        label=f"patches: average precision {patch.value('average_precision'):.3f}",
        prevalence=tumor / (tumor + normal),
        operating_point=at,
    )


def _froc(summary: EvaluateSummary) -> Figure | str:
    curve = summary.measured.froc_curve
    return curve.reason or evaluation_plots.froc_figure(curve)


def _reliability(summary: EvaluateSummary) -> Figure | str:
    figure = summary.measured.patch.figures["expected_calibration_error"]
    if figure.value is None:
        return figure.reason or ""
    return evaluation_plots.reliability_figure(summary.measured.reliability, error=figure.value)
