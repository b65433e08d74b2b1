"""The results page over all slides that have results in the project's folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from qprd import __version__
from qprd.errors import QprdError
from qprd.jobs.slides import recorded_name
from qprd.layout import ProjectLayout
from qprd.model.bundle import BundleInfo
from qprd.results_folder import OVERVIEW, PREDICTIONS, SLIDE, load_slide_result
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
        QprdError: the page cannot be written.
    """
    folders = sorted(path.parent for path in layout.results.glob(f"[!.]*/{SLIDE}"))
    rows = [_row(folder, info) for folder in folders]
    warnings = []
    validation = info.validation
    if info.threshold is None and not (validation and validation.tumor and validation.normal):
        warnings.append(
            "The model was trained without validation patches of both classes: its scores have no "
            "tested threshold and no probability."
        )
    if threshold is None:
        warnings.append(
            "There is no threshold, and so there are no contours: predict with --threshold or "
            "--operating-point."
        )
    if set(info.validation_slides) & set(info.training_slides):
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
        validation=_validation(info),
        warnings=tuple(warnings),
    )
    return write_index(layout.results, rows, summary)


def _row(folder: Path, info: BundleInfo) -> SlideRow:
    try:
        result = load_slide_result(folder)
    except QprdError as error:
        # An earlier slide's damage must not cost this prediction.
        return SlideRow(name=f"entry {folder.name}", warnings=(str(error),))
    warnings = []
    if result.bundle != info.name:
        warnings.append(f"Predicted earlier, with {result.bundle}.")
    if result.slide_score is None:
        warnings.append("No tissue was found.")
    split = None
    name = recorded_name(result.image)
    if name in info.training_slides:
        split = "train"
        warnings.append("The model was trained on this slide.")
    elif name in info.validation_slides:
        split = "val"
    return SlideRow(
        name=result.image,
        picture=PurePosixPath(folder.name, OVERVIEW),
        slide_score=result.slide_score,
        contours=result.contours,
        tumor_area_mm2=result.tumor_um2 / 1e6,
        tissue_area_mm2=result.tissue_um2 / 1e6,
        split=split,
        files={
            "GeoJSON": PurePosixPath(folder.name, PREDICTIONS),
            "figures": PurePosixPath(folder.name, SLIDE),
        },
        warnings=tuple(warnings),
    )


def _validation(info: BundleInfo) -> dict[str, str]:
    names = {"val_accuracy": "patch accuracy", "val_auroc": "patch AUROC"}
    shown = {
        name: f"{value:.3f}"
        for key, name in names.items()
        if isinstance(value := info.metrics.get(key), float)
    }
    if info.calibration is not None and (reliability := info.calibration.reliability) is not None:
        shown["calibration error"] = f"{reliability.expected_calibration_error:.3f}"
    return shown
