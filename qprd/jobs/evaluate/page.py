"""Files of an evaluation: the page with curves and crops, the figures as JSON, and the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qprd.errors import QprdError
from qprd.evaluation.mistakes import Mistake
from qprd.files.layout import ProjectLayout
from qprd.jobs.evaluate.slide import EvaluatedSlide
from qprd.jobs.evaluate.summary import EvaluateSummary, level_tables, shown_number, slide_table
from qprd.jobs.predict.index import write_results_index
from qprd.jobs.reporting import write_json_object
from qprd.progress import Progress
from qprd.qupath.entry_slides import open_slide
from qprd.results.evaluation import EVALUATION_JSON, EVALUATION_PAGE
from qprd.review.crops import crop_jpeg
from qprd.review.evaluation_plots import evaluation_figures
from qprd.review.figures import figure_png
from qprd.review.pages import write_page
from qprd.version import __version__

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

#: Edge of a crop in its own pixels, and in patches.
_CROP_PX = 320
_CROP_PATCHES = 3.0
_PLOT_DPI = 110


def publish(
    summary: EvaluateSummary, layout: ProjectLayout, info: BundleInfo, *, progress: Progress
) -> None:
    """Write the page, the same figures as JSON beside it, and the index that links to it.

    Raises:
        QprdError: One of them cannot be written.
    """
    steps = len(summary.false_positives) + len(summary.misses) + 1
    with progress.task("drawing the page", steps, "picture") as task:
        cards: list[list[dict[str, object]]] = []
        for mistakes in (summary.false_positives, summary.misses):
            cards.append([])
            for index, mistake in mistakes:
                cards[-1].append(_card(mistake, summary.slides[index], info))
                task.advance()
        figures = evaluation_figures(summary.patch, summary.slide, summary.lesion)
        plots = {
            title: figure if isinstance(figure, str) else figure_png(figure, dpi=_PLOT_DPI)
            for title, figure in figures.items()
        }
        task.advance()
    write_page(
        layout.results / EVALUATION_PAGE,
        EVALUATION_PAGE,
        split=summary.split,
        facts={
            "Bundle": summary.bundle,
            "Threshold": shown_number(summary.threshold),
            "Slides": len(summary.slides),
            "Date": summary.created,
            "qprd": __version__,
        },
        warnings=[*summary.notes, *(f"not evaluated: {p}" for p in summary.problems)],
        tables=level_tables(summary),
        plots=plots,
        slide_table=slide_table(summary),
        false_positives=cards[0],
        misses=cards[1],
        has_threshold=summary.threshold is not None,
    )
    write_json_object(layout.results / EVALUATION_JSON, summary.report())
    thresholds = {slide.threshold for slide in summary.slides}
    write_results_index(
        layout,
        info,
        threshold=thresholds.pop() if len(thresholds) == 1 else info.scoring.threshold,
    )


def _card(mistake: Mistake, evaluated: EvaluatedSlide, info: BundleInfo) -> dict[str, object]:
    """A mistake as the page shows it: its place in level-0 pixels, and a crop around it.

    Where the slide cannot be read, the reason stands for the crop.
    """
    entry, x, y, mpp = evaluated.entry, mistake.x, mistake.y, evaluated.mpp
    edge_px = _CROP_PATCHES * max(info.network.patch_um / mpp, evaluated.cell_px)
    left, top, downsample = x - edge_px / 2, y - edge_px / 2, edge_px / _CROP_PX
    half = evaluated.cell_px / 2
    jpeg: bytes | str
    try:
        with open_slide(entry, assume_mpp=mpp) as slide:
            pixels = slide.read_downsampled(left, top, _CROP_PX, _CROP_PX, downsample)
    except QprdError as error:
        jpeg = error.line_about("No picture")
    else:
        jpeg = crop_jpeg(
            pixels,
            left=left,
            top=top,
            downsample=downsample,
            cell=(x - half, y - half, x + half, y + half),
            drawn=evaluated.tumor_region,
        )
    score = f"score {mistake.score:.3f}"
    if (probability_of := info.scoring.probability_of) is not None:
        score += f", probability {float(probability_of(mistake.score)):.3f}"
    place = {"entry_id": entry.id, "slide": entry.name, "x": x, "y": y, "mpp": mpp}
    return {**place, "score": score, "jpeg": jpeg}
