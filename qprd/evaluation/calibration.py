"""From raw scores to probabilities (Platt scaling)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.errors import QprdError


@dataclass(frozen=True)
class Platt:
    """Probability of tumor = 1 / (1 + exp(-(slope * score + intercept))).

    Attributes:
        slope: 0 or positive: a higher score is never less likely to be tumor.
        intercept: Log-odds at score 0.
    """

    slope: float
    intercept: float

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities 0..1 in the shape of the scores; NaN stays NaN."""
        from scipy.special import expit

        log_odds = self.slope * np.asarray(scores, dtype=np.float64) + self.intercept
        return np.asarray(expit(log_odds), dtype=np.float64)

    def to_dict(self) -> dict[str, float]:
        """For JSON; see `from_dict`."""
        return {"slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Platt:
        """Read what `to_dict` gave.

        Raises:
            QprdError: A value is missing, not a finite number, or the slope is negative.
        """
        slope, intercept = values.get("slope"), values.get("intercept")
        for value in (slope, intercept):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
                raise QprdError(
                    "The calibration needs a finite slope and intercept.",
                    where=f"slope {slope!r}, intercept {intercept!r}",
                    fix="Train the bundle again, or get it again from where it came from.",
                )
        platt = cls(float(slope), float(intercept))  # type: ignore[arg-type]
        if platt.slope < 0:
            raise QprdError(
                "The slope of the calibration is negative: higher scores would be less like tumor.",
                where=f"slope {platt.slope}",
                fix="Train the bundle again, or get it again from where it came from.",
            )
        return platt


@dataclass(frozen=True)
class Uncalibrated:
    """There is no calibration.

    Attributes:
        reason: Why, in one sentence for the user.
    """

    reason: str


def fit_platt(
    scores: ArrayLike, y_tumor: ArrayLike, *, min_per_class: int = 10
) -> Platt | Uncalibrated:
    """Fit a logistic curve to labeled scores by maximum likelihood, its slope at least 0.

    The targets are Platt's, (n_tumor + 1) / (n_tumor + 2) for tumor and 1 / (n_normal + 2) for
    normal instead of 1 and 0, so that scores that separate the classes perfectly still give a
    finite slope. The problem is convex; it is solved to machine precision, so that the result
    depends on nothing but the scores.

    References:
        J. Platt, "Probabilistic outputs for support vector machines", 1999; H.-T. Lin, C.-J. Lin,
        R. C. Weng, "A note on Platt's probabilistic outputs for support vector machines", 2007.

    Args:
        scores: (n,) finite, from slides that the model was not trained on.
        y_tumor: (n,) bool, True = tumor. The probabilities hold for this mix of the classes.
        min_per_class: With fewer of either class there is nothing to fit.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    s, y = np.asarray(scores, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    if s.shape != y.shape or s.ndim != 1:
        raise ValueError(f"scores {s.shape} and labels {y.shape} must be one for one, in one row")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite")
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    if min(n_tumor, n_normal) < min_per_class:
        return Uncalibrated(
            f"Probabilities need at least {min_per_class} validation patches of each class; "
            f"there are {n_tumor} of tumor and {n_normal} of normal tissue."
        )
    targets = np.where(y, (n_tumor + 1) / (n_tumor + 2), 1 / (n_normal + 2))
    center, spread = float(s.mean()), float(s.std()) or 1.0
    z = (s - center) / spread

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = parameters[0] * z + parameters[1]
        # -t log(p) - (1 - t) log(1 - p), in the form that does not overflow.
        loss = np.logaddexp(0.0, log_odds) - targets * log_odds
        residual = expit(log_odds) - targets
        return float(loss.mean()), np.array([np.mean(residual * z), residual.mean()])

    start = np.array([0.0, math.log((n_tumor + 1) / (n_normal + 1))])
    fit = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None), (None, None)],
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    )
    slope, intercept = (float(value) for value in fit.x)
    return Platt(slope / spread, intercept - slope * center / spread)


def expected_calibration_error(
    probabilities: ArrayLike, y_tumor: ArrayLike, *, bins: int = 10
) -> float | None:
    """How far the probabilities are from the observed frequencies, on average.

    Sum over equally wide bins of n_bin / n * |mean probability - fraction of tumor|.

    Args:
        probabilities: (n,), 0..1; NaN is left out.
        y_tumor: (n,) bool, True = tumor.
        bins: Number of bins over 0..1.

    Returns:
        0 (perfect) .. 1; None without probabilities.

    Raises:
        ValueError: The shapes differ, or a probability is outside 0..1.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    if p.shape != y.shape or p.ndim != 1:
        raise ValueError(f"{p.shape} probabilities and {y.shape} labels must be one for one")
    y, p = y[~np.isnan(p)], p[~np.isnan(p)]
    if not p.size:
        return None
    if p.min() < 0 or p.max() > 1:
        raise ValueError("probabilities must be between 0 and 1")
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    differences = np.bincount(bin_of, weights=p - y, minlength=bins)
    return float(np.abs(differences).sum() / p.size)
