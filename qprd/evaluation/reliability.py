"""Reliability of probabilities: how far they are from the frequencies that are observed."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from pydantic.dataclasses import dataclass

from qprd.checked import STRICT, Count, NotNegative, Share
from qprd.evaluation.metrics import checked_labels, has_both_classes

#: Equally wide bins over 0..1.
N_BINS = 10


@dataclass(frozen=True, config=STRICT)
class ReliabilityBin:
    """The patches whose probability falls into one of equally wide bins over 0..1.

    Attributes:
        mean_probability: Their mean probability; None in an empty bin.
        fraction_tumor: The share of them that is tumor; None in an empty bin.
    """

    count: Count
    mean_probability: Share | None
    fraction_tumor: Share | None


@dataclass(frozen=True, config=STRICT)
class Reliability:
    """How far probabilities can be trusted, measured by cross-validation on validation patches.

    Each patch is judged by a curve that was fitted without its fold. As the epoch of the model was
    chosen on the same patches, even these figures are a little optimistic.

    Attributes:
        reason: Why this kind of curve was taken, in one sentence.
        by_slide: No slide was in two folds; False if there are too few slides for that.
        log_loss_platt: Mean negative log likelihood of the labels with Platt's curve, in nats.
        log_loss_isotonic: The same with the isotonic curve; None if it was not tried.
        brier_score: Mean squared difference of probability and label (1 = tumor).
    """

    reason: Annotated[str, Field(max_length=1000)]
    n_tumor: Count
    n_normal: Count
    folds: Annotated[int, Field(ge=2, le=1000)]
    by_slide: bool
    log_loss_platt: NotNegative
    log_loss_isotonic: NotNegative | None
    brier_score: Share
    expected_calibration_error: Share
    bins: Annotated[tuple[ReliabilityBin, ...], Field(max_length=100)]


def measure_reliability(
    y_true: ArrayLike, probabilities: ArrayLike, *, n_bins: int = N_BINS, balanced: bool = False
) -> tuple[float | None, tuple[ReliabilityBin, ...]]:
    """Compare probabilities with observed frequencies in equally wide bins.

    The expected calibration error is the mean distance of the two, 0 (perfect) .. 1:
    ECE = sum over bins of (n_bin / n) * abs(mean probability - fraction of tumor).

    Args:
        y_true: (n,) bool.
        probabilities: (n,), 0..1; NaN is left out.
        n_bins: Number of bins over 0..1; 1 belongs to the last one.
        balanced: Give both classes the same weight, whatever their numbers: for probabilities that
            hold for 1:1, on data of another mix. Counts stay as they are.

    Returns:
        The expected calibration error, and the bins from 0 to 1; None and no bins without
        probabilities or, if balanced, without one of the classes.

    Raises:
        ValueError: The shapes differ, the labels are not boolean, or a probability is outside 0..1.

    References:
        M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using
        Bayesian binning", 2015.

    Examples:
        >>> measure_reliability([False, False, False, True], [0.25, 0.25, 0.75, 0.75])[0]
        0.25
    """
    p = np.asarray(probabilities, dtype=np.float64)
    is_known = ~np.isnan(p)
    y, _ = checked_labels(y_true, np.where(is_known, p, 0.0))
    y, p = y[is_known], p[is_known]
    if not p.size or (balanced and not has_both_classes(y)):
        return None, ()
    if p.min() < 0 or p.max() > 1:
        raise ValueError("probabilities must be between 0 and 1")
    weights = np.ones(p.size)
    if balanced:
        from sklearn.utils.class_weight import compute_sample_weight

        weights = compute_sample_weight("balanced", y)
    bin_of = np.minimum((p * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(bin_of, minlength=n_bins)
    total, sum_p, sum_y = (np.bincount(bin_of, weights * v, minlength=n_bins) for v in (1, p, y))
    bins = tuple(
        ReliabilityBin(int(n), min(float(a / w), 1.0), min(float(b / w), 1.0))
        if n
        else ReliabilityBin(0, None, None)
        for n, w, a, b in zip(counts, total, sum_p, sum_y, strict=True)
    )
    return min(float(np.abs(sum_p - sum_y).sum() / total.sum()), 1.0), bins
