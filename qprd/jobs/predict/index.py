"""The index of the results: a page with all slides that have results in the project's folder."""

from __future__ import annotations

from pathlib import Path

from qprd.bundle.records import BundleInfo
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.results.evaluation import EVALUATION_PAGE, RecordedEvaluation, last_evaluation
from qprd.results.folder import SLIDE, load_slide_result
from qprd.review.index_page import SlideRow, write_index
from qprd.version import __version__


def write_results_index(
    layout: ProjectLayout, info: BundleInfo, *, threshold: float | None
) -> Path:
    """Write ``results/index.html`` with a row for each slide, earlier predictions included.

    Raises:
        QprdError: The page cannot be written.
    """
    folders = sorted(path.parent for path in layout.results.glob(f"[!.]*/{SLIDE}"))
    rows = [_row(folder, info) for folder in folders]
    date = max((row.result.created for row in rows if row.result), default="")
    evaluation = last_evaluation(layout)
    warnings = []
    scoring, validation = info.scoring, info.scoring.validation
    if scoring.threshold is None and not (validation and validation.tumor and validation.normal):
        warnings.append(
            "The model was trained without validation patches of both classes: its scores have no "
            "tested threshold and no probability."
        )
    if threshold is None:
        warnings.append(
            "There is no threshold, and so there are no contours: predict with --threshold or "
            "--operating-point."
        )
    training = info.training
    if any(training.use_of(slide) == "train" for slide in training.validation_slides):
        warnings.append(
            "The model was validated on another part of the slide it was trained on: its figures "
            "are optimistic."
        )
    return write_index(
        layout.results,
        rows,
        bundle=info.name,
        threshold=threshold,
        facts={
            "Bundle": info.name,
            "Teacher": info.network.teacher.name,
            "Threshold": "\N{EN DASH}" if threshold is None else f"{threshold:.3f}",
            **_validation(info),
            "Last predicted": date or "\N{EN DASH}",
            "qprd": __version__,
        },
        warnings=warnings,
        evaluation=None if evaluation is None else _described(evaluation, info, date),
    )


def _described(evaluation: RecordedEvaluation, info: BundleInfo, date: str) -> tuple[str, str]:
    area = evaluation.patch.get("auroc")
    text = f"evaluated on {evaluation.split} slides, {evaluation.created}"
    if isinstance(area, float):
        text += f": patch AUROC {area:.3f}"
    if evaluation.bundle != info.name:
        text += f". That was another bundle, {evaluation.bundle}"
    elif evaluation.created < date:
        text += ". That was before the last prediction: run qprd evaluate again"
    return EVALUATION_PAGE, text


def _row(folder: Path, info: BundleInfo) -> SlideRow:
    try:
        result = load_slide_result(folder)
    except QprdError as error:
        # An earlier slide's damage must not cost this prediction.
        return SlideRow(folder.name, warnings=(str(error),))
    warnings = []
    if result.bundle != info.name:
        warnings.append(f"Predicted earlier, with {result.bundle}.")
    if result.slide_score is None:
        warnings.append("No tissue was found.")
    warnings += result.notes
    split = info.training.use_of(result.slide)
    if split == "train":
        warnings.append("The model was trained on this slide.")
    return SlideRow(folder.name, result, split, tuple(warnings))


def _validation(info: BundleInfo) -> dict[str, str]:
    names = {"val_accuracy": "patch accuracy", "val_auroc": "patch AUROC"}
    shown = {
        name: f"{value:.3f}"
        for key, name in names.items()
        if isinstance(value := info.training.metrics.get(key), float)
    }
    calibration = info.scoring.calibration
    if calibration is not None and (reliability := calibration.reliability) is not None:
        shown["calibration error"] = f"{reliability.expected_calibration_error:.3f}"
    return shown
