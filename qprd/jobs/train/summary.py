"""The summary of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qprd.bundle.ancestry import AnnotationChanges, ReviewCounts
from qprd.evaluation.operating_point import Achieved
from qprd.evaluation.reliability import Reliability
from qprd.names import counted
from qprd.settings import Recipe, Scoring


@dataclass(frozen=True)
class ValidationFigures:
    """The figures of the validation, on scores as slides are scored.

    A figure that is None is undefined: there were no validation patches, or of one class only.

    Attributes:
        operating_point: The rule that chooses the threshold.
        accuracy: At the most accurate threshold, on validation patches.
        auroc: On validation patches.
        threshold: Raw score from which tissue counts as tumor.
        achieved: What the threshold achieves on the data that chose it.
        calibration: The curve that gives the probabilities, and how far they can be trusted.
    """

    scoring: Scoring
    operating_point: str
    accuracy: float | None = None
    auroc: float | None = None
    threshold: float | None = None
    achieved: Achieved | None = None
    calibration: Reliability | None = None

    def lines(self) -> list[str]:
        """Threshold and probability for people."""
        if self.threshold is None:
            lines = ["There is no threshold."]
        else:
            lines = [
                f"Operating point {self.operating_point}: threshold {self.threshold:.3f}, on the "
                f"validation data that chose it {self.achieved}."
            ]
        if self.calibration is not None:
            lines.append(_calibration_line(self.calibration))
        return lines


@dataclass(frozen=True)
class Origin:
    """The reviews and the earlier bundle that a training builds on.

    Attributes:
        parent: Name of the bundle that it was continued from, or None.
        changes: Changes of annotations since that bundle; None without one, or if it lists none.
        review: Numbers of reviewed predictions that were used.
    """

    parent: str | None
    changes: AnnotationChanges | None
    review: ReviewCounts

    def lines(self) -> list[str]:
        """The origin for people."""
        lines, review = [], self.review
        if review.accepted or review.rejected:
            lines.append(
                f"From review of training slides: {counted(review.accepted, 'region')} accepted "
                f"and {review.rejected} rejected, which gave {review.tumor_patches} tumor and "
                f"{review.normal_patches} normal training patches."
            )
        if review.validation:
            lines.append(
                f"From review of validation slides: {counted(review.validation, 'region')}, from "
                "which the model learns nothing."
            )
        if self.parent is not None:
            changes = self.changes
            since = (
                ""
                if changes is None
                else f": since then {changes.new} annotations are new, {changes.changed} changed, "
                f"{changes.gone} gone"
            )
            lines.append(f"Continued from {self.parent}{since}.")
        return lines


@dataclass(frozen=True)
class TrainSummary:
    """Summary of a training.

    Attributes:
        bundle: The bundle's folder.
        patches: Number of patches by split and label, e.g. ``{"train": {"normal": 300, ...}}``.
        slides: Image names by split.
        best_epoch: The epoch whose weights were kept; None without epochs.
        epochs: Finished epochs.
    """

    project: Path
    backend: str
    bundle: Path
    recipe: Recipe
    teacher: str
    patches: dict[str, dict[str, int]]
    slides: dict[str, list[str]]
    origin: Origin
    best_epoch: int | None
    epochs: int
    validation: ValidationFigures
    notes: tuple[str, ...]
    seconds: float

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [f"note: {note}" for note in self.notes]
        for split, counts in self.patches.items():
            slides = self.slides.get(split, [])
            lines.append(
                f"{split:>8}: {counts.get('normal', 0)} normal + {counts.get('tumor', 0)} tumor "
                f"patches from {', '.join(slides[:5])}{', ...' if len(slides) > 5 else ''}"
            )
        lines += self.origin.lines()
        lines += self._epoch_lines()
        if self.validation.accuracy is not None and self.validation.auroc is not None:
            lines.append(
                f"On validation patches: accuracy {self.validation.accuracy:.3f}, AUROC "
                f"{self.validation.auroc:.3f}."
            )
        lines += self.validation.lines()
        lines.append(f"Trained in {self.seconds:.0f} s with {self.teacher}, recipe {self.recipe}.")
        lines.append(f"Bundle: {self.bundle}")
        return lines

    def _epoch_lines(self) -> list[str]:
        """What became of the epochs; nothing where there are none."""
        if self.best_epoch is None:
            return []
        kept = f"Epoch {self.best_epoch} of {self.epochs} is kept"
        if self.recipe == "paper" and self.validation.accuracy is not None:
            kept += ", the best on validation patches"
        return [f"{kept}."]


def _calibration_line(reliability: Reliability) -> str:
    """The figures of the probabilities in a line."""
    losses = {"Platt's curve": reliability.log_loss_platt}
    if reliability.log_loss_isotonic is not None:
        losses["isotonic"] = reliability.log_loss_isotonic
    compared = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return (
        f"Probability: expected calibration error {reliability.expected_calibration_error:.3f}, "
        f"Brier score {reliability.brier_score:.3f}, log loss: {compared} "
        f"({reliability.folds}-fold cross-validation by "
        f"{'slide' if reliability.by_slide else 'patch'}); {reliability.reason}."
    )
