"""Calibration: from raw scores to probabilities, by Platt's curve or an isotonic one.

A probability holds for the mix of patches it was fitted on, and validation patches are as many of
tumor as of normal tissue: 0.5 means that a score is as frequent in tumor as in normal tissue. On a
slide with little tumor fewer cells of that probability are tumor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from qprd.checked import STRICT, NotNegative, RawScore, Share
from qprd.evaluation.metrics import checked_labels
from qprd.evaluation.reliability import Reliability, measure_reliability

#: With fewer validation patches of either class there is no probability: none could be left out of
#: a fit to test it.
MIN_PER_CLASS: Final = 2
#: With fewer of either class the isotonic curve is not tried: it would follow the noise.
MIN_FOR_CHOICE: Final = 30
#: Share of Platt's curve in an isotonic one.
PLATT_SHARE: Final = 0.01
_FOLDS = 5
#: Points of the largest isotonic curve that is read.
_MAX_POINTS = 10_000


@dataclass(frozen=True, config=STRICT)
class Platt:
    """Probability of tumor = 1 / (1 + exp(-(slope * score + intercept))).

    Attributes:
        slope: 0 or positive: a higher score is never less likely to be tumor.
        intercept: Log-odds at score 0.
        reliability: How far its probabilities can be trusted; None in bundles of format 1.
    """

    slope: NotNegative
    intercept: float
    method: Literal["platt"] = "platt"
    reliability: Reliability | None = None

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities 0..1 in the shape of the scores; NaN stays NaN."""
        from scipy.special import expit

        with np.errstate(over="ignore"):
            log_odds = self.slope * np.asarray(scores, dtype=np.float64) + self.intercept
        return np.asarray(expit(log_odds), dtype=np.float64)


@dataclass(frozen=True, config=STRICT)
class Isotonic:
    """A continuous curve: isotonic regression, linear between its points, and a little of Platt's.

    Probability of tumor = (1 - `PLATT_SHARE`) * staircase + `PLATT_SHARE` * logistic curve.
    The staircase alone is flat over long stretches and beyond its ends; the logistic part keeps the
    order of the scores there too, wherever its slope is not 0.

    Attributes:
        scores: Raw scores of the points, strictly increasing.
        probabilities: The staircase at these points, never falling, 0..1.
        slope: Slope of the logistic curve, 0 or positive.
        intercept: Log-odds of the logistic curve at score 0.
        reliability: How far its probabilities can be trusted; None if that was not measured.
    """

    scores: Annotated[tuple[RawScore, ...], Field(min_length=1, max_length=_MAX_POINTS)]
    probabilities: Annotated[tuple[Share, ...], Field(min_length=1, max_length=_MAX_POINTS)]
    slope: NotNegative
    intercept: float
    method: Literal["isotonic"] = "isotonic"
    reliability: Reliability | None = None

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.probabilities):
            raise ValueError("scores and probabilities must be one for one")
        if (np.diff(self.scores) <= 0).any():
            raise ValueError("scores must be strictly increasing")
        if (np.diff(self.probabilities) < 0).any():
            raise ValueError("probabilities must not fall")

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities 0..1 in the shape of the scores; NaN stays NaN."""
        s = np.asarray(scores, dtype=np.float64)
        x, y = np.array(self.scores), np.array(self.probabilities)
        # Rounding must not lift the end of a piece above the start of the next one.
        following = np.searchsorted(x, s, side="right")
        staircase = np.minimum(np.interp(s, x, y), np.append(y, y[-1])[following])
        logistic = Platt(self.slope, self.intercept).probability(s)
        p = (1 - PLATT_SHARE) * staircase + PLATT_SHARE * logistic
        return np.asarray(p, dtype=np.float64)


def _method(value: object) -> str | None:
    """Which kind of curve; format 1 of the bundle knew only one and did not name it."""
    if isinstance(value, Mapping):
        return str(value.get("method", "platt"))
    return getattr(value, "method", None)


#: A curve from raw scores to probabilities, as bundles hold it. Checked where it is read: bundles
#: come from strangers.
Calibration = Annotated[
    Annotated[Platt, Tag("platt")] | Annotated[Isotonic, Tag("isotonic")],
    Discriminator(_method),
]


@dataclass(frozen=True)
class Uncalibrated:
    """The absence of a calibration."""

    reason: str


def fit_calibration(
    y_true: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
) -> Platt | Isotonic | Uncalibrated:
    """Choose between Platt's and an isotonic curve by cross-validated log loss, and fit it.

    Folds are stratified; where the groups allow it, no group is in two folds. The reliability that
    comes with the curve is that of the cross-validation; the curve itself is fitted on all patches.

    Args:
        y_true: (n,) bool, True for tumor. The probabilities hold for this mix of the classes.
        scores: (n,) finite, from slides that the model was not trained on.
        groups: Slide of each score; None if there is one slide.
        seed: Seed for the folds.

    Returns:
        The curve. With fewer than `MIN_FOR_CHOICE` of either class it is Platt's, and the reason
        says so; with fewer than `MIN_PER_CLASS` there is none.

    Raises:
        ValueError: The shapes differ, the labels are not boolean, or a score is not finite.
    """
    from sklearn.metrics import brier_score_loss, log_loss

    y, s = checked_labels(y_true, scores)
    if groups is not None and len(groups) != len(s):
        raise ValueError(f"{len(groups)} groups and {len(s)} scores must be one for one")
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    if min(n_tumor, n_normal) < MIN_PER_CLASS:
        return Uncalibrated(
            f"Probabilities need at least {MIN_PER_CLASS} validation patches of each class; "
            f"there are {n_tumor} of tumor and {n_normal} of normal tissue."
        )
    folds, by_slide = _folds(y, groups, seed)
    # Held-out probabilities: each patch is judged by a curve fitted without its fold.
    probabilities, losses = _held_out(fit_platt, y, s, folds), {}
    losses["platt"] = float(log_loss(y, probabilities))
    fit: Callable[..., Platt | Isotonic] = fit_platt
    if min(n_tumor, n_normal) < MIN_FOR_CHOICE:
        reason = (
            f"Platt's curve, without a choice: {n_tumor} tumor and {n_normal} normal validation "
            f"patches are few (an isotonic curve needs {MIN_FOR_CHOICE} of each), and so the "
            "probabilities are rough"
        )
    else:
        isotonic = _held_out(fit_isotonic, y, s, folds)
        losses["isotonic"] = float(log_loss(y, isotonic))
        # Without a slope an isotonic curve would be flat in places, and lose the order of scores.
        if losses["isotonic"] < losses["platt"] and fit_platt(y, s).slope > 0:
            fit, probabilities = fit_isotonic, isotonic
        name = "an isotonic" if fit is fit_isotonic else "Platt's"
        reason = f"{name} curve has the lower cross-validated log loss"
    error, bins = measure_reliability(y, probabilities)
    assert error is not None
    reliability = Reliability(
        reason=reason,
        n_tumor=n_tumor,
        n_normal=n_normal,
        folds=len(folds),
        by_slide=by_slide,
        log_loss_platt=losses["platt"],
        log_loss_isotonic=losses.get("isotonic"),
        brier_score=float(brier_score_loss(y, probabilities)),
        expected_calibration_error=error,
        bins=bins,
    )
    return replace(fit(y, s), reliability=reliability)


def fit_platt(y_true: ArrayLike, scores: ArrayLike) -> Platt:
    """Fit a logistic curve to labeled scores by maximum likelihood, its slope at least 0.

    The targets are Platt's, (n_tumor + 1) / (n_tumor + 2) for tumor and 1 / (n_normal + 2) for
    normal instead of 1 and 0, so that scores that separate the classes perfectly still give a
    finite slope. The problem is convex, so that the result depends on nothing but the scores.

    References:
        J. Platt, "Probabilistic outputs for support vector machines", 1999; H.-T. Lin, C.-J. Lin,
        R. C. Weng, "A note on Platt's probabilistic outputs for support vector machines", 2007.

    Examples:
        >>> curve = fit_platt([False, False, True, True], [1.0, 2.0, 2.0, 3.0])
        >>> round(float(curve.probability(2.0)), 3)
        0.5
    """
    from scipy.special import logit
    from sklearn.linear_model import LogisticRegression

    y, s = checked_labels(y_true, scores)
    targets = _targets(y)
    center, spread = float(s.mean()), float(s.std()) or 1.0
    # Each score is tumor with the weight of its target, and normal with the rest.
    z = np.tile((s - center) / spread, 2)[:, None]
    is_tumor, weights = np.repeat([True, False], len(s)), np.concatenate([targets, 1 - targets])
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fit.fit(z, is_tumor, sample_weight=weights)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope < 0:
        slope, intercept = 0.0, float(logit(targets.mean()))
    return Platt(slope / spread, intercept - slope * center / spread)


def fit_isotonic(y_true: ArrayLike, scores: ArrayLike) -> Isotonic:
    """Fit an isotonic regression to labeled scores, with a little of Platt's curve in it.

    The targets are Platt's, as in `fit_platt`, so that no probability is 0 or 1.

    References:
        B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability
        estimates", 2002.
    """
    from sklearn.isotonic import IsotonicRegression

    y, s = checked_labels(y_true, scores)
    staircase = IsotonicRegression().fit(s, _targets(y))
    logistic = fit_platt(y, s)
    return Isotonic(
        scores=tuple(staircase.X_thresholds_.tolist()),
        probabilities=tuple(staircase.y_thresholds_.tolist()),
        slope=logistic.slope,
        intercept=logistic.intercept,
    )


def _targets(y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Platt's targets in place of the labels 1 and 0."""
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    return np.where(y, (n_tumor + 1) / (n_tumor + 2), 1 / (n_normal + 2))


_Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def _held_out(
    fit: Callable[..., Platt | Isotonic],
    y: NDArray[np.bool_],
    s: NDArray[np.float64],
    folds: Sequence[_Fold],
) -> NDArray[np.float64]:
    """Probability of each score from a curve fitted without its fold."""
    probabilities = np.empty(len(s))
    for train, held_out in folds:
        probabilities[held_out] = fit(y[train], s[train]).probability(s[held_out])
    return probabilities


def _folds(
    y: NDArray[np.bool_], groups: Sequence[str] | None, seed: int
) -> tuple[list[_Fold], bool]:
    """Stratified folds; by group where each of them leaves both classes to fit on."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(_FOLDS, int(y.sum()), int((~y).sum()))
    n_groups = len(set(groups or ()))
    if n_groups > 1:
        by_group = StratifiedGroupKFold(min(count, n_groups), shuffle=True, random_state=seed)
        folds = [fold for fold in by_group.split(y, y, groups) if len(fold[1])]
        if len(folds) > 1 and all(0 < y[train].sum() < len(train) for train, _ in folds):
            return folds, True
    by_patch = StratifiedKFold(count, shuffle=True, random_state=seed)
    return list(by_patch.split(y, y)), False
