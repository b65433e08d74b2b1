"""The results page over all slides that have results in the project's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from qprd import __version__
from qprd.layout import ProjectLayout
from qprd.model.bundle import BundleInfo
from qprd.results_folder import OVERVIEW, PREDICTIONS, SLIDE, SlideResult, load_slide_result
from qprd.review.report import RunSummary, SlideRow, write_index


def write_results_index(
    layout: ProjectLayout, info: BundleInfo, *, threshold: float | None, date: str
) -> Path:
    """Write ``results/index.html`` with a row for each slide, earlier predictions included.

    Args:
        layout: Of the project.
        info: The bundle of the current prediction; slides of another one are marked.
        threshold: The one in use.
        date: Of the current prediction.

    Raises:
        QprdError: a result is damaged, or the page cannot be written.
    """
    folders = sorted(path.parent for path in layout.results.glob(f"[!.]*/{SLIDE}"))
    rows = [_row(folder.name, load_slide_result(folder), info) for folder in folders]
    warnings = []
    if not info.validation_slides:
        warnings.append(
            "The model was trained without validation slides: its scores have no tested threshold "
            "and no probability."
        )
    elif set(info.validation_slides) & set(info.training_slides):
        warnings.append(
            "The model was validated on another part of the slide it was trained on: its figures "
            "are optimistic."
        )
    summary = RunSummary(
        bundle=info.name,
        teacher=info.teacher.name,
        date=date,
        version=__version__,
        threshold=threshold,
        validation=_validation(info.metrics),
        warnings=tuple(warnings),
    )
    return write_index(layout.results, rows, summary)


def _row(folder: str, result: SlideResult, info: BundleInfo) -> SlideRow:
    warnings = []
    if result.bundle != info.name:
        warnings.append(f"Predicted earlier, with {result.bundle}.")
    if result.slide_score is None:
        warnings.append("No tissue was found.")
    split = None
    if result.image in info.training_slides:
        split = "train"
        warnings.append("The model was trained on this slide.")
    elif result.image in info.validation_slides:
        split = "val"
    return SlideRow(
        name=result.image,
        picture=PurePosixPath(folder, OVERVIEW),
        slide_score=result.slide_score,
        contours=result.contours,
        tumor_area_mm2=result.tumor_um2 / 1e6,
        tissue_area_mm2=result.tissue_um2 / 1e6,
        split=split,
        files={
            "GeoJSON": PurePosixPath(folder, PREDICTIONS),
            "figures": PurePosixPath(folder, SLIDE),
        },
        warnings=tuple(warnings),
    )


def _validation(metrics: Mapping[str, object]) -> dict[str, str]:
    names = {"val_accuracy": "patch accuracy", "val_auroc": "patch AUROC"}
    return {
        name: f"{value:.3f}"
        for key, name in names.items()
        if isinstance(value := metrics.get(key), float)
    }
