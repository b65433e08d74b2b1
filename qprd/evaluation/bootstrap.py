"""Bootstrap confidence intervals: what the figures might have been with other slides.

Patches of one slide resemble each other, so whole slides are drawn, with replacement, slides with
tumor and slides without it each on their own: their numbers are the project's choice, not chance.
Where too few slides hold a class, its patches are drawn instead, and the interval says so: it is
then too narrow, as it knows nothing of how slides differ.

Scores enter as counts on a common axis of levels, so that a resample costs no sorting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.evaluation.froc import FROC_RATES, Matches
from qprd.evaluation.metrics import LabeledScores

_Floats = NDArray[np.float64]
_Measure = Callable[[_Floats, int | None], _Floats]
#: The unit of a resample and how many of it there are.
_Drawn = tuple[Literal["slides", "patches"], int]

#: Resamples of an interval, and its confidence.
RESAMPLES = 2000
CONFIDENCE = 0.95

#: Levels that scores are told apart by within resamples: beyond this many distinct scores, those
#: of the same quantile count as tied, which moves an area by less than 1 / `_LEVELS`.
_LEVELS = 2048
#: Resamples held in memory at once.
_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        unit: What was drawn: ``slides``, or ``patches`` where there are too few slides.
        size: How many of them there are to draw from: those with the class that the figure needs,
            with the rarer one if it needs both. Few make the interval rough, mostly too narrow.
        undefined: Resamples in which the figure had no value; they do not count.
    """

    low: float
    high: float
    unit: Literal["slides", "patches"]
    size: int
    undefined: int = 0


def patch_intervals(
    slides: Sequence[LabeledScores], *, threshold: float | None, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of the patch figures, over slides where each class is on at least two.

    Args:
        slides: Labeled patches of each slide.
        threshold: Tumor is ``score >= threshold``; None leaves out what needs one.
        seed: Of the draws.

    Returns:
        By figure: ``auroc``, ``average_precision``, and with a threshold ``accuracy``,
        ``balanced_accuracy``, ``sensitivity``, ``specificity``. One that is undefined, or defined
        in less than half of the resamples, is left out.
    """
    slides = [slide for slide in slides if slide.scores.size]
    if not slides:
        return {}
    counts, first = _counts(slides, threshold)
    on_tumor, on_normal = ((counts.sum(axis=2) > 0).sum(axis=0)[k] for k in (1, 0))
    enough = {"tumor": bool(on_tumor >= 2), "normal": bool(on_normal >= 2)}
    over_slides = {
        name for name, (_, needs) in _MEASURES.items() if all(enough[label] for label in needs)
    }
    names = [name for name in _MEASURES if threshold is not None or name not in _AT_THRESHOLD]
    rng = np.random.default_rng(seed)
    holding = {"tumor": int(on_tumor), "normal": int(on_normal)}
    found = _intervals(
        _resample_slides(counts, rng),
        {
            name: ("slides", min(holding[label] for label in _MEASURES[name][1]))
            for name in names
            if name in over_slides
        },
        first,
    )
    rest = [name for name in names if name not in over_slides]
    if rest:
        pooled = counts.sum(axis=0)
        of_label = dict(zip(_BOTH[::-1], pooled.sum(axis=1).astype(int).tolist(), strict=True))
        found |= _intervals(
            _resample_patches(pooled, rng),
            {
                name: ("patches", _smallest(of_label[label] for label in _MEASURES[name][1]))
                for name in rest
            },
            first,
        )
    return {name: found[name] for name in names if name in found}


def slide_intervals(y_tumor: ArrayLike, scores: ArrayLike, *, seed: int = 0) -> dict[str, Interval]:
    """Intervals of ``auroc`` and ``average_precision`` of one score a slide.

    Args:
        y_tumor: (n,) bool.
        scores: (n,) finite.
        seed: Of the draws.

    Returns:
        By figure; empty with less than two slides of either label.
    """
    y, s = np.asarray(y_tumor, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if min(y.sum(), (~y).sum()) < 2:
        return {}
    counts, first = _counts([LabeledScores(y, s)], None)
    draws = _resample_patches(counts[0], np.random.default_rng(seed))
    rarer: _Drawn = ("slides", int(min(y.sum(), (~y).sum())))
    return _intervals(draws, dict.fromkeys(("auroc", "average_precision"), rarer), first)


def sum_intervals(
    parts: ArrayLike,
    measures: dict[str, Callable[[_Floats], _Floats]],
    *,
    strata: ArrayLike,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of figures that depend on sums over the slides, such as an IoU on its areas.

    Args:
        parts: (slides, k) what each slide adds.
        measures: Each takes (resamples, k) sums to (resamples,) values, NaN where undefined.
        strata: (slides,) bool: slides with tumor and slides without it are drawn apart.
        seed: Of the draws.

    Returns:
        By figure; empty with less than two slides that have tumor.
    """
    of_slide, with_tumor = np.asarray(parts, dtype=np.float64), np.asarray(strata, dtype=np.bool_)
    if with_tumor.sum() < 2:
        return {}
    sums = _multiplicities(with_tumor, np.random.default_rng(seed)) @ of_slide
    size = int(with_tumor.sum())
    return _defined(
        {name: _percentiles(measure(sums), "slides", size) for name, measure in measures.items()}
    )


def froc_interval(slides: Sequence[Matches], *, seed: int = 0) -> Interval | None:
    """Interval of the FROC score; None with less than two slides that have lesions.

    Args:
        slides: What the detections of each slide hit.
        seed: Of the draws.
    """
    with_lesions = np.array([len(of_slide.lesions) > 0 for of_slide in slides], dtype=np.bool_)
    if with_lesions.sum() < 2:
        return None
    hits = [of_slide.best_scores[of_slide.best >= 0] for of_slide in slides]
    false = [of_slide.false_positive_scores for of_slide in slides]
    levels = _levels(np.concatenate([*hits, *false]))
    lesions = np.array([len(of_slide.lesions) for of_slide in slides])
    drawn = _multiplicities(with_lesions, np.random.default_rng(seed))
    scores = []
    for start in range(0, RESAMPLES, _CHUNK):
        times = drawn[start : start + _CHUNK]
        sensitivity = _at_least(times, hits, levels) / (times @ lesions)[:, None]
        fp_per_slide = _at_least(times, false, levels) / len(slides)
        scores += [
            float(np.mean(np.interp(FROC_RATES, x, y)))
            for x, y in zip(fp_per_slide, sensitivity, strict=True)
        ]
    return _percentiles(np.array(scores), "slides", int(with_lesions.sum()))


def _at_least(times: _Floats, of_slides: Sequence[NDArray[np.float64]], levels: _Floats) -> _Floats:
    """(resamples, levels + 1): how many scores are at or above each level, the highest first.

    Before the highest level there is an infinite one, which none reaches.
    """
    counts = np.zeros((len(of_slides), levels.size + 1))
    for of_slide, scores in zip(counts, of_slides, strict=True):
        np.add.at(of_slide, levels.size - np.searchsorted(levels, scores, side="right") + 1, 1.0)
    return np.asarray(np.cumsum(times @ counts, axis=1))


def _levels(scores: NDArray[np.floating]) -> _Floats:
    """The distinct scores, or `_LEVELS` of them, ascending, the lowest among them."""
    levels = np.unique(scores.astype(np.float64))
    if levels.size > _LEVELS:
        levels = levels[np.linspace(0, levels.size - 1, _LEVELS).astype(np.intp)]
    return levels


def _counts(slides: Sequence[LabeledScores], threshold: float | None) -> tuple[_Floats, int | None]:
    """How many patches of each slide and label have each level of score.

    Returns:
        (slides, 2, levels), normal before tumor, levels ascending; and the first level that is at
        or above the threshold.
    """
    levels = _levels(np.concatenate([slide.scores for slide in slides]))
    first: int | None = None
    if threshold is not None:
        # A level of its own, so that no level has scores on both sides of it.
        levels = np.union1d(levels, [threshold])
        first = int(np.searchsorted(levels, threshold))
    counts = np.zeros((len(slides), 2, levels.size))
    for of_slide, slide in zip(counts, slides, strict=True):
        level = np.searchsorted(levels, slide.scores.astype(np.float64), side="right") - 1
        np.add.at(of_slide, (slide.y_tumor.astype(np.intp), level), 1.0)
    return counts, first


def _multiplicities(with_tumor: NDArray[np.bool_], rng: np.random.Generator) -> _Floats:
    """(resamples, slides): how often each slide is drawn."""
    drawn = np.zeros((RESAMPLES, with_tumor.size))
    for stratum in (with_tumor, ~with_tumor):
        size = int(stratum.sum())
        if size:
            drawn[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return drawn


def _resample_slides(counts: _Floats, rng: np.random.Generator) -> Iterator[_Floats]:
    slides, _, levels = counts.shape
    drawn = _multiplicities(counts[:, 1].sum(axis=1) > 0, rng)
    flat = counts.reshape(slides, 2 * levels)
    for start in range(0, RESAMPLES, _CHUNK):
        yield (drawn[start : start + _CHUNK] @ flat).reshape(-1, 2, levels)


def _resample_patches(counts: _Floats, rng: np.random.Generator) -> Iterator[_Floats]:
    """Draw as many patches of each label as there are, from all of that label."""
    totals = counts.sum(axis=1)
    for start in range(0, RESAMPLES, _CHUNK):
        size = min(_CHUNK, RESAMPLES - start)
        drawn = np.zeros((size, *counts.shape))
        for label, total in enumerate(totals):
            if total:
                drawn[:, label] = rng.multinomial(int(total), counts[label] / total, size=size)
        yield drawn


def _intervals(
    draws: Iterator[_Floats], drawn_from: Mapping[str, _Drawn], first: int | None
) -> dict[str, Interval]:
    if not drawn_from:
        return {}
    values: dict[str, list[_Floats]] = {name: [] for name in drawn_from}
    with np.errstate(divide="ignore", invalid="ignore"):
        for drawn in draws:
            for name, of_figure in values.items():
                of_figure.append(_MEASURES[name][0](drawn, first))
    return _defined(
        {name: _percentiles(np.concatenate(values[name]), *of) for name, of in drawn_from.items()}
    )


def _smallest(counts: Iterable[int]) -> int:
    """The smallest one that is not 0."""
    return min((count for count in counts if count), default=0)


def _defined(intervals: Mapping[str, Interval | None]) -> dict[str, Interval]:
    return {name: interval for name, interval in intervals.items() if interval is not None}


def _percentiles(values: _Floats, unit: Literal["slides", "patches"], size: int) -> Interval | None:
    """None if most resamples leave the figure undefined."""
    tail = 100 * (1 - CONFIDENCE) / 2
    defined = values[~np.isnan(values)]
    if 2 * defined.size < values.size:
        return None
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(float(low), float(high), unit, size, values.size - defined.size)


# Below, ``counts`` is (resamples, 2, levels) and the results (resamples,), NaN where undefined.


def _auroc(counts: _Floats, _first: int | None) -> _Floats:
    normal, tumor = counts[:, 0], counts[:, 1]
    below = np.cumsum(normal, axis=1) - normal
    above = (tumor * (below + normal / 2)).sum(axis=1)
    return np.asarray(above / (normal.sum(axis=1) * tumor.sum(axis=1)))


def _average_precision(counts: _Floats, _first: int | None) -> _Floats:
    normal, tumor = (np.cumsum(counts[:, k, ::-1], axis=1) for k in (0, 1))
    called = normal + tumor
    precision = np.divide(tumor, called, out=np.zeros_like(tumor), where=called > 0)
    gained = counts[:, 1, ::-1]
    value = (gained * precision).sum(axis=1) / tumor[:, -1]
    return np.asarray(np.where(normal[:, -1] > 0, value, np.nan))


def _sensitivity(counts: _Floats, first: int | None) -> _Floats:
    return np.asarray(counts[:, 1, first:].sum(axis=1) / counts[:, 1].sum(axis=1))


def _specificity(counts: _Floats, first: int | None) -> _Floats:
    return np.asarray(counts[:, 0, :first].sum(axis=1) / counts[:, 0].sum(axis=1))


def _balanced_accuracy(counts: _Floats, first: int | None) -> _Floats:
    return (_sensitivity(counts, first) + _specificity(counts, first)) / 2


def _accuracy(counts: _Floats, first: int | None) -> _Floats:
    right = counts[:, 1, first:].sum(axis=1) + counts[:, 0, :first].sum(axis=1)
    return np.asarray(right / counts.sum(axis=(1, 2)))


_BOTH = ("tumor", "normal")
#: How each figure comes from counts, and which labels must be on two slides to draw slides.
_MEASURES: dict[str, tuple[_Measure, tuple[str, ...]]] = {
    "auroc": (_auroc, _BOTH),
    "average_precision": (_average_precision, _BOTH),
    "accuracy": (_accuracy, _BOTH),
    "balanced_accuracy": (_balanced_accuracy, _BOTH),
    "sensitivity": (_sensitivity, ("tumor",)),
    "specificity": (_specificity, ("normal",)),
}
_AT_THRESHOLD = {"accuracy", "balanced_accuracy", "sensitivity", "specificity"}
