"""From raw scores to probabilities: Platt's curve or an isotonic one, with honest figures.

A probability holds for the mix of the patches it was fitted on, and validation patches are as many
of tumor as of normal tissue: 0.5 says that a score is as frequent in tumor as in normal tissue.
On a slide with little tumor fewer cells of that probability are tumor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from qprd.checked import STRICT, Count, NotNegative, RawScore, Share

#: With fewer validation patches of either class there is no probability: none could be left out of
#: a fit to test it.
MIN_PER_CLASS: Final = 2
#: With fewer of either class the isotonic curve is not tried: it would follow the noise.
MIN_FOR_CHOICE: Final = 30
#: Share of Platt's curve in an isotonic one.
PLATT_SHARE: Final = 0.01
_FOLDS = 5
_BINS = 10
#: Points of the largest isotonic curve that is read.
_MAX_POINTS = 10_000
#: Logarithms of probabilities are taken this far from 0 and 1.
_CLIP = 1e-15


@dataclass(frozen=True, config=STRICT)
class ReliabilityBin:
    """What came of the patches whose probability fell into one of equally wide bins over 0..1.

    Attributes:
        count: How many patches.
        mean_probability: Of these patches; None in an empty bin.
        fraction_tumor: The share of them that is tumor; likewise.
    """

    count: Count
    mean_probability: Share | None
    fraction_tumor: Share | None


@dataclass(frozen=True, config=STRICT)
class Reliability:
    """How far probabilities can be trusted, measured by cross-validation on validation patches.

    Each patch is judged by a curve that was fitted without its fold. The epoch of the model was
    chosen on the same patches, so that even these figures are a little optimistic.

    Attributes:
        reason: Why this kind of curve was taken, in one sentence.
        n_tumor: Tumor patches.
        n_normal: Normal patches.
        folds: Into how many parts they were divided.
        by_slide: No slide was in two folds; False if there are too few slides for that.
        log_loss_platt: Mean negative log likelihood of the labels, in nats.
        log_loss_isotonic: Likewise; None if the isotonic curve was not tried.
        brier_score: Mean squared difference of probability and label (1 = tumor).
        expected_calibration_error: See `expected_calibration_error`.
        bins: From 0 to 1.
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


@dataclass(frozen=True, config=STRICT)
class Platt:
    """Probability of tumor = 1 / (1 + exp(-(slope * score + intercept))).

    Attributes:
        slope: 0 or positive: a higher score is never less likely to be tumor.
        intercept: Log-odds at score 0.
        method: Name of this kind of curve.
        reliability: None in bundles of format 1.
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
        slope: Of the logistic curve; see `Platt`.
        intercept: Likewise.
        method: Name of this kind of curve.
        reliability: Its figures.
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
    """There is no calibration.

    Attributes:
        reason: Why, in one sentence for the user.
    """

    reason: str


def fit_calibration(
    scores: ArrayLike,
    y_tumor: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
) -> Platt | Isotonic | Uncalibrated:
    """Choose between Platt's and an isotonic curve by cross-validated log loss, and fit it.

    Folds are stratified; where the groups allow it, none is in two folds. The figures that come
    with the curve are those of the cross-validation; the curve itself is fitted on all patches.

    Args:
        scores: (n,) finite, from slides that the model was not trained on.
        y_tumor: (n,) bool, True = tumor. The probabilities hold for this mix of the classes.
        groups: Slide of each score; None if there is one slide.
        seed: Of the folds.

    Returns:
        The curve. With fewer than `MIN_FOR_CHOICE` of either class it is Platt's, and the reason
        says so; with fewer than `MIN_PER_CLASS` there is none.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    s, y = _labeled(scores, y_tumor)
    if groups is not None and len(groups) != len(s):
        raise ValueError(f"{len(groups)} groups and {len(s)} scores must be one for one")
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    if min(n_tumor, n_normal) < MIN_PER_CLASS:
        return Uncalibrated(
            f"Probabilities need at least {MIN_PER_CLASS} validation patches of each class; "
            f"there are {n_tumor} of tumor and {n_normal} of normal tissue."
        )
    tried = min(n_tumor, n_normal) >= MIN_FOR_CHOICE
    folds, by_slide = _folds(y, groups, seed)
    platt, isotonic = np.empty(len(s)), np.empty(len(s))
    for train, held_out in folds:
        platt[held_out] = fit_platt(s[train], y[train]).probability(s[held_out])
        if tried:
            isotonic[held_out] = fit_isotonic(s[train], y[train]).probability(s[held_out])
    loss_platt = log_loss(platt, y)
    loss_isotonic = log_loss(isotonic, y) if tried else None
    # Without a slope an isotonic curve would be flat in places, and the order of the scores lost.
    is_isotonic = (
        loss_isotonic is not None and loss_isotonic < loss_platt and fit_platt(s, y).slope > 0
    )
    if loss_isotonic is None:
        reason = (
            f"Platt's curve, without a choice: {n_tumor} tumor and {n_normal} normal validation "
            f"patches are few (an isotonic curve needs {MIN_FOR_CHOICE} of each), and so the "
            "probabilities are rough"
        )
    else:
        name = "an isotonic" if is_isotonic else "Platt's"
        reason = f"{name} curve has the lower cross-validated log loss"
    chosen = isotonic if is_isotonic else platt
    error = expected_calibration_error(chosen, y, bins=_BINS)
    assert error is not None
    reliability = Reliability(
        reason=reason,
        n_tumor=n_tumor,
        n_normal=n_normal,
        folds=len(folds),
        by_slide=by_slide,
        log_loss_platt=loss_platt,
        log_loss_isotonic=loss_isotonic,
        brier_score=brier_score(chosen, y),
        expected_calibration_error=error,
        bins=reliability_bins(chosen, y, bins=_BINS),
    )
    fit = fit_isotonic if is_isotonic else fit_platt
    return fit(s, y, reliability)


def fit_platt(
    scores: ArrayLike, y_tumor: ArrayLike, reliability: Reliability | None = None
) -> Platt:
    """Fit a logistic curve to labeled scores by maximum likelihood, its slope at least 0.

    The targets are Platt's, (n_tumor + 1) / (n_tumor + 2) for tumor and 1 / (n_normal + 2) for
    normal instead of 1 and 0, so that scores that separate the classes perfectly still give a
    finite slope. The problem is convex; it is solved to machine precision, so that the result
    depends on nothing but the scores.

    References:
        J. Platt, "Probabilistic outputs for support vector machines", 1999; H.-T. Lin, C.-J. Lin,
        R. C. Weng, "A note on Platt's probabilistic outputs for support vector machines", 2007.

    Args:
        scores: (n,) finite, n > 0.
        y_tumor: (n,) bool, True = tumor.
        reliability: Put into the result.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    s, y = _labeled(scores, y_tumor)
    targets = _targets(y)
    center, spread = float(s.mean()), float(s.std()) or 1.0
    z = (s - center) / spread

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_odds = parameters[0] * z + parameters[1]
        # -t log(p) - (1 - t) log(1 - p), in the form that does not overflow.
        loss = np.logaddexp(0.0, log_odds) - targets * log_odds
        residual = expit(log_odds) - targets
        return float(loss.mean()), np.array([np.mean(residual * z), residual.mean()])

    start = np.array([0.0, math.log((y.sum() + 1) / ((~y).sum() + 1))])
    fit = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None), (None, None)],
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    )
    slope, intercept = (float(value) for value in fit.x)
    return Platt(slope / spread, intercept - slope * center / spread, reliability=reliability)


def fit_isotonic(
    scores: ArrayLike, y_tumor: ArrayLike, reliability: Reliability | None = None
) -> Isotonic:
    """Fit an isotonic regression to labeled scores, with a little of Platt's curve in it.

    The targets are Platt's, as in `fit_platt`, so that no probability is 0 or 1.

    References:
        B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability
        estimates", 2002.

    Args:
        scores: (n,) finite, n > 0.
        y_tumor: (n,) bool, True = tumor.
        reliability: Put into the result.

    Raises:
        ValueError: The shapes differ, or a score is not finite.
    """
    from sklearn.isotonic import IsotonicRegression

    s, y = _labeled(scores, y_tumor)
    staircase = IsotonicRegression().fit(s, _targets(y))
    logistic = fit_platt(s, y)
    return Isotonic(
        scores=tuple(staircase.X_thresholds_.tolist()),
        probabilities=tuple(staircase.y_thresholds_.tolist()),
        slope=logistic.slope,
        intercept=logistic.intercept,
        reliability=reliability,
    )


def log_loss(probabilities: ArrayLike, y_tumor: ArrayLike) -> float:
    """Mean negative log likelihood of the labels in nats; probabilities (n,), labels (n,) bool."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    of_label = np.clip(np.where(y, p, 1 - p), _CLIP, 1.0)
    return float(-np.log(of_label).mean())


def brier_score(probabilities: ArrayLike, y_tumor: ArrayLike) -> float:
    """Mean squared difference of probability and label; (n,) and (n,) bool. 0 (perfect) .. 1."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    return float(np.mean((p - y) ** 2))


def expected_calibration_error(
    probabilities: ArrayLike, y_tumor: ArrayLike, *, bins: int = _BINS, balanced: bool = False
) -> float | None:
    """How far the probabilities are from the observed frequencies, on average.

    Sum over equally wide bins of n_bin / n * |mean probability - fraction of tumor|.

    Args:
        probabilities: (n,), 0..1; NaN is left out.
        y_tumor: (n,) bool, True = tumor.
        bins: Number of bins over 0..1.
        balanced: Count as if there were as much tumor as normal, see `reliability_bins`.

    Returns:
        0 (perfect) .. 1; None without probabilities or, if balanced, without either class.

    Raises:
        ValueError: The shapes differ, or a probability is outside 0..1.
    """
    p, y = _probabilities(probabilities, y_tumor)
    weights = _weights(y, balanced)
    if weights is None or not p.size:
        return None
    inside = _bin_numbers(p, bins)
    deviations = [
        abs(float((weights[inside == number] * (p - y)[inside == number]).sum()))
        for number in range(bins)
    ]
    return min(sum(deviations) / float(weights.sum()), 1.0)


def reliability_bins(
    probabilities: ArrayLike, y_tumor: ArrayLike, *, bins: int = _BINS, balanced: bool = False
) -> tuple[ReliabilityBin, ...]:
    """Compare probabilities with frequencies in equally wide bins; see `ReliabilityBin`.

    Args:
        probabilities: (n,), 0..1; NaN is left out.
        y_tumor: (n,) bool, True = tumor.
        bins: Number of bins over 0..1; 1 belongs to the last one.
        balanced: Let both classes weigh alike in means and fractions, whatever their numbers: for
            probabilities that hold for 1:1, on data of another mix. Counts stay what they are.

    Returns:
        The bins; none if balanced without either class.

    Raises:
        ValueError: The shapes differ, or a probability is outside 0..1.
    """
    p, y = _probabilities(probabilities, y_tumor)
    weights = _weights(y, balanced)
    if weights is None:
        return ()
    bin_of = _bin_numbers(p, bins)
    found = []
    for number in range(bins):
        inside = bin_of == number
        count = int(inside.sum())
        if not count:
            found.append(ReliabilityBin(0, None, None))
            continue
        mean, fraction = (
            min(float(np.average(values[inside], weights=weights[inside])), 1.0)
            for values in (p, y)
        )
        found.append(ReliabilityBin(count, mean, fraction))
    return tuple(found)


def _probabilities(
    probabilities: ArrayLike, y_tumor: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    if p.shape != y.shape or p.ndim != 1:
        raise ValueError(f"{p.shape} probabilities and {y.shape} labels must be one for one")
    y, p = y[~np.isnan(p)], p[~np.isnan(p)]
    if p.size and (p.min() < 0 or p.max() > 1):
        raise ValueError("probabilities must be between 0 and 1")
    return p, y


def _bin_numbers(p: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def _weights(y: NDArray[np.bool_], balanced: bool) -> NDArray[np.float64] | None:
    """Of each point; None where classes that are not there would have to weigh alike."""
    if not balanced:
        return np.ones(y.size)
    if y.all() or not y.any():
        return None
    n_tumor = int(y.sum())
    of_tumor, of_normal = y.size / (2 * n_tumor), y.size / (2 * (y.size - n_tumor))
    return np.where(y, of_tumor, of_normal)


def _labeled(
    scores: ArrayLike, y_tumor: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(y_tumor, dtype=np.bool_)
    if s.shape != y.shape or s.ndim != 1:
        raise ValueError(f"scores {s.shape} and labels {y.shape} must be one for one, in one row")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite")
    return s, y


def _targets(y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What Platt puts in the place of the labels 1 and 0."""
    n_tumor, n_normal = int(y.sum()), int((~y).sum())
    return np.where(y, (n_tumor + 1) / (n_tumor + 2), 1 / (n_normal + 2))


_Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def _folds(
    y: NDArray[np.bool_], groups: Sequence[str] | None, seed: int
) -> tuple[list[_Fold], bool]:
    """Stratified folds; by group where each of them leaves both classes to fit on."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = min(_FOLDS, int(y.sum()), int((~y).sum()))
    slides = len(set(groups or ()))
    if slides > 1:
        by_group = StratifiedGroupKFold(min(count, slides), shuffle=True, random_state=seed)
        folds = list(_without_empty(by_group.split(y, y, groups)))
        if len(folds) > 1 and all(0 < y[train].sum() < len(train) for train, _ in folds):
            return folds, True
    by_patch = StratifiedKFold(count, shuffle=True, random_state=seed)
    return list(by_patch.split(y, y)), False


def _without_empty(folds: Iterator[_Fold]) -> Iterator[_Fold]:
    return (fold for fold in folds if len(fold[1]))
