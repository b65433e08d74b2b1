"""What a training tells when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qprd.bundle.ancestry import AnnotationChanges, ReviewCounts
from qprd.evaluation.operating_point import Achieved
from qprd.evaluation.reliability import Reliability
from qprd.settings import Recipe


@dataclass(frozen=True)
class TrainSummary:
    """What a training run did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        recipe: How it was trained.
        teacher: Name of the teacher.
        patches: Number of patches by split and label, e.g. ``{"train": {"normal": 300, ...}}``.
        slides: Image names by split.
        best_epoch: Whose weights were kept.
        epochs: Finished epochs.
        val_accuracy: Of the most accurate threshold, on validation patches; None if undefined.
        val_auroc: Likewise.
        threshold: Raw score from which tissue counts as tumor; None without validation.
        operating_point: The rule that chose it.
        achieved: What it achieves on the validation data that chose it; None without threshold.
        calibration: Which curve gives the probabilities, and how far they can be trusted; None
            without probability.
        notes: What the user should know.
        interrupted: Ctrl-C ended it early.
        seconds: Time spent.
        review: How much came from reviewed predictions.
        parent: Name of the bundle that it went on from, or None.
        changes: What happened to annotations since that bundle; None without it, or if it lists
            none.
    """

    project: Path
    backend: str
    bundle: Path
    recipe: Recipe
    teacher: str
    patches: dict[str, dict[str, int]]
    slides: dict[str, list[str]]
    best_epoch: int
    epochs: int
    val_accuracy: float | None
    val_auroc: float | None
    threshold: float | None
    operating_point: str
    achieved: Achieved | None
    calibration: Reliability | None
    notes: tuple[str, ...]
    interrupted: bool
    seconds: float
    review: ReviewCounts = field(default_factory=ReviewCounts)
    parent: str | None = None
    changes: AnnotationChanges | None = None

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [f"note: {note}" for note in self.notes]
        for split, counts in self.patches.items():
            slides = self.slides.get(split, [])
            lines.append(
                f"{split:>8}: {counts.get('normal', 0)} normal + {counts.get('tumor', 0)} tumor "
                f"patches from {', '.join(slides[:5])}{', ...' if len(slides) > 5 else ''}"
            )
        lines += self._told_origin()
        if self.interrupted:
            kept = "best" if self.recipe == "paper" else "last"
            lines.append(f"Interrupted after {self.epochs} epochs; the {kept} one is kept.")
        if self.val_accuracy is not None and self.val_auroc is not None:
            epoch = f"Epoch {self.best_epoch} of {self.epochs}"
            if self.recipe == "paper":
                epoch += " is best"
            lines.append(
                f"{epoch}, on validation patches: "
                f"accuracy {self.val_accuracy:.3f}, AUROC {self.val_auroc:.3f}."
            )
        else:
            lines.append(
                f"Epoch {self.best_epoch} of {self.epochs} is kept; without validation patches "
                "of both classes none is best."
            )
        if self.threshold is None:
            lines.append("There is no threshold.")
        else:
            lines.append(
                f"Operating point {self.operating_point}: threshold {self.threshold:.3f}, on the "
                f"validation data that chose it {self.achieved}."
            )
        if self.calibration is not None:
            lines.append(_told_calibration(self.calibration))
        lines.append(f"Trained in {self.seconds:.0f} s with {self.teacher}, recipe {self.recipe}.")
        lines.append(f"Bundle: {self.bundle}")
        return lines

    def _told_origin(self) -> list[str]:
        """What came from a review and from an earlier bundle."""
        lines, review = [], self.review
        if review.accepted or review.rejected:
            lines.append(
                f"From review: {review.accepted} accepted and {review.rejected} rejected regions, "
                f"which gave {review.tumor_patches} tumor and {review.normal_patches} normal "
                "training patches."
            )
        if self.parent is not None:
            changes = self.changes
            lines.append(
                f"Goes on from {self.parent}"
                + (
                    ""
                    if changes is None
                    else f": since then {changes.new} annotations are new, {changes.changed} "
                    f"changed, {changes.gone} gone"
                )
                + "."
            )
        return lines


def _told_calibration(reliability: Reliability) -> str:
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
