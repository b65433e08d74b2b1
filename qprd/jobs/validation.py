"""What the validation patches decide once a model is trained: threshold and probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.evaluation.calibration import Isotonic, Platt, Uncalibrated, fit_calibration
from qprd.evaluation.metrics import accuracy_threshold


@dataclass(frozen=True)
class Validated:
    """Threshold and probability, or why there are none.

    Attributes:
        threshold: Raw score from which tissue counts as tumor.
        calibration: From raw scores to probabilities.
        uncalibrated: Why there is no calibration, in one sentence; None if there is one.
        notes: What the user should know.
    """

    threshold: float | None
    calibration: Platt | Isotonic | None
    uncalibrated: str | None
    notes: tuple[str, ...]


def validate(
    scores: NDArray[np.float32] | None,
    tumor: NDArray[np.bool_],
    slides: Sequence[str],
    *,
    seed: int,
) -> Validated:
    """Fit threshold and probability.

    Args:
        scores: Raw scores of the validation patches, (n,); None without any.
        tumor: (n,).
        slides: Slide of each patch, (n,).
        seed: Of the folds of the cross-validation.
    """
    fitted = None if scores is None else accuracy_threshold(tumor, scores)
    if scores is None or fitted is None:
        reason = "no validation patches of both classes"
        note = (
            f"{reason}: the model has no threshold and no probability; set one with --threshold, "
            "or annotate a second slide"
        )
        return Validated(None, None, reason, (note,))
    calibration = fit_calibration(scores, tumor, slides, seed=seed)
    if isinstance(calibration, Uncalibrated):
        note = f"no probability: {calibration.reason}"
        return Validated(fitted.value, None, calibration.reason, (note,))
    reliability = calibration.reliability
    notes = []
    if reliability is not None and reliability.log_loss_isotonic is None:
        notes.append(f"probability: {reliability.reason}")
    return Validated(fitted.value, calibration, None, tuple(notes))
