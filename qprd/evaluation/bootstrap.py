"""Bootstrap confidence intervals over slides.

Patches of one slide resemble each other, so whole slides are drawn with replacement, those with
tumor and those without it separately: how many there are of each is a choice of the project, not
chance. Where fewer than two slides hold a class, its patches are drawn instead, and the interval
says so: it is too narrow then, as it knows nothing of how slides differ.

Every metric here is a function of sums over the slides. Scores enter as counts on a common axis of
levels, so that no resample has to be sorted.

References:
    B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qprd.evaluation.cells import LabeledScores
from qprd.evaluation.froc import FROC_RATES, Matches
from qprd.evaluation.metrics import checked_labels

_Floats = NDArray[np.float64]
#: Takes (resamples, k) sums over the drawn slides to (resamples,) values, NaN where undefined.
Statistic = Callable[[_Floats], _Floats]

#: Resamples of an interval, its confidence, and the seed of the draws.
RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 0

#: Beyond this many distinct scores, those of the same quantile count as tied, which moves an area
#: by less than 1 / `_LEVELS`.
_LEVELS = 2048
#: Resamples held in memory at once.
_CHUNK = 100


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        unit: What was drawn: ``slides``, or ``patches`` where there are too few slides.
        size: How many units with the class that the metric needs there are to draw from; of the
            rarer class if it needs both. With few the interval is rough, and mostly too narrow.
        undefined: Resamples in which the metric was undefined; they are left out.
    """

    low: float
    high: float
    unit: Literal["slides", "patches"]
    size: int
    undefined: int = 0


def patch_intervals(
    slides: Sequence[LabeledScores], *, threshold: float | None
) -> dict[str, Interval]:
    """Intervals of the patch metrics, over slides where at least two hold each class needed.

    Args:
        slides: Labeled patches of each slide.
        threshold: Tumor is ``score >= threshold``; None leaves out the metrics that need one.

    Returns:
        By metric: ``auroc``, ``average_precision``, and with a threshold ``accuracy``,
        ``balanced_accuracy``, ``sensitivity``, ``specificity``. A metric that is undefined in most
        of the resamples is left out.
    """
    slides = [slide for slide in slides if slide.scores.size]
    if not slides:
        return {}
    counts, first = _counts(slides, threshold)
    statistics = {
        name: _on_counts(function, first)
        for name, (function, _) in _METRICS.items()
        if threshold is not None or name in _RANKING
    }
    n_slides, n_patches = (counts.sum(axis=2) > 0).sum(axis=0), counts.sum(axis=(0, 2))
    slide_sizes = {name: int(n_slides[_METRICS[name][1]].min()) for name in statistics}
    over_slides = {name: size for name, size in slide_sizes.items() if size >= 2}
    over_patches = {
        # The smallest number of patches that is not 0.
        name: int(min((n for n in n_patches[_METRICS[name][1]] if n), default=0))
        for name in statistics
        if name not in over_slides
    }
    rng = np.random.default_rng(_SEED)
    parts = counts.reshape(len(slides), -1)
    found = _intervals(
        _slide_draws(parts, counts[:, 1].sum(axis=1) > 0, rng), statistics, "slides", over_slides
    )
    found |= _intervals(_patch_draws(counts.sum(axis=0), rng), statistics, "patches", over_patches)
    return {name: found[name] for name in statistics if name in found}


def slide_intervals(y_true: ArrayLike, scores: ArrayLike) -> dict[str, Interval]:
    """Intervals of ``auroc`` and ``average_precision`` of one score per slide.

    There are none with fewer than two slides of either class.
    """
    y, s = checked_labels(y_true, scores)
    if min(y.sum(), (~y).sum()) < 2:
        return {}
    # Slides are drawn like the patches of one slide: as many of each class as there are.
    found = patch_intervals([LabeledScores(y, s)], threshold=None)
    return {name: replace(interval, unit="slides") for name, interval in found.items()}


def sum_intervals(
    parts: ArrayLike,
    statistics: Mapping[str, Statistic],
    *,
    has_tumor: ArrayLike,
) -> dict[str, Interval]:
    """Intervals of statistics of sums over the slides, such as an IoU from summed areas.

    Args:
        parts: (slides, k) what each slide adds.
        statistics: By name.
        has_tumor: (slides,) bool; slides with tumor and slides without it are drawn separately.

    Returns:
        By name; empty with fewer than two slides that have tumor.
    """
    with_tumor = np.asarray(has_tumor, dtype=np.bool_)
    size = int(with_tumor.sum())
    if size < 2:
        return {}
    rng = np.random.default_rng(_SEED)
    draws = _slide_draws(np.asarray(parts, dtype=np.float64), with_tumor, rng)
    return _intervals(draws, statistics, "slides", dict.fromkeys(statistics, size))


def froc_interval(slides: Sequence[Matches]) -> Interval | None:
    """Interval of the FROC score; None with fewer than two slides that have lesions."""
    if not slides:
        return None
    hits = [slide.hit_scores for slide in slides]
    false_positives = [slide.false_positive_scores for slide in slides]
    levels = _levels(np.concatenate([*hits, *false_positives]))
    lesions = np.array([[slide.best_scores.size] for slide in slides], dtype=np.float64)
    parts = [_descending(hits, levels), _descending(false_positives, levels), lesions]

    def score(sums: _Floats) -> _Floats:
        hit, false = np.cumsum(sums[:, :-1].reshape(len(sums), 2, -1), axis=2).swapaxes(0, 1)
        sensitivity, fp_per_slide = hit / sums[:, -1:], false / len(slides)
        curves = zip(fp_per_slide, sensitivity, strict=True)
        return np.array([np.mean(np.interp(FROC_RATES, x, y)) for x, y in curves])

    return sum_intervals(
        np.concatenate(parts, axis=1), {"score": score}, has_tumor=lesions[:, 0] > 0
    ).get("score")


def _descending(of_slides: Sequence[NDArray[np.float64]], levels: _Floats) -> _Floats:
    """(slides, levels + 1): scores at each level from the highest, after an infinite one."""
    counts = np.zeros((len(of_slides), levels.size + 1))
    for row, scores in zip(counts, of_slides, strict=True):
        np.add.at(row, levels.size - np.searchsorted(levels, scores, side="right") + 1, 1.0)
    return counts


def _levels(scores: NDArray[np.floating]) -> _Floats:
    """The distinct scores, or `_LEVELS` of them, ascending, the lowest among them."""
    levels = np.unique(scores.astype(np.float64))
    if levels.size > _LEVELS:
        levels = levels[np.linspace(0, levels.size - 1, _LEVELS).astype(np.intp)]
    return levels


def _counts(slides: Sequence[LabeledScores], threshold: float | None) -> tuple[_Floats, int | None]:
    """Count the patches of each slide and class at each level of score.

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
        np.add.at(of_slide, (slide.y_true.astype(np.intp), level), 1.0)
    return counts, first


def _multiplicities(has_tumor: NDArray[np.bool_], rng: np.random.Generator) -> _Floats:
    """(resamples, slides): how often each slide is drawn."""
    drawn = np.zeros((RESAMPLES, has_tumor.size))
    for stratum in (has_tumor, ~has_tumor):
        size = int(stratum.sum())
        if size:
            drawn[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return drawn


def _slide_draws(
    parts: _Floats, has_tumor: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[_Floats]:
    """Sums (resamples, k) over drawn slides, a chunk of the resamples at a time."""
    drawn = _multiplicities(has_tumor, rng)
    for start in range(0, RESAMPLES, _CHUNK):
        yield drawn[start : start + _CHUNK] @ parts


def _patch_draws(counts: _Floats, rng: np.random.Generator) -> Iterator[_Floats]:
    """Counts of patches drawn with replacement, as many of each class as there are."""
    for start in range(0, RESAMPLES, _CHUNK):
        size = min(_CHUNK, RESAMPLES - start)
        drawn = np.zeros((size, *counts.shape))
        for label, total in enumerate(counts.sum(axis=1)):
            if total:
                drawn[:, label] = rng.multinomial(int(total), counts[label] / total, size=size)
        yield drawn.reshape(size, -1)


def _intervals(
    draws: Iterator[_Floats],
    statistics: Mapping[str, Statistic],
    unit: Literal["slides", "patches"],
    sizes: Mapping[str, int],
) -> dict[str, Interval]:
    """Intervals of the statistics that ``sizes`` names, without those mostly undefined."""
    if not sizes:
        return {}
    chunks: dict[str, list[_Floats]] = {name: [] for name in sizes}
    with np.errstate(divide="ignore", invalid="ignore"):
        for sums in draws:
            for name, values in chunks.items():
                values.append(statistics[name](sums))
    tail = 100 * (1 - CONFIDENCE) / 2
    found = {}
    for name, values in chunks.items():
        of_resamples = np.concatenate(values)
        defined = of_resamples[~np.isnan(of_resamples)]
        undefined = of_resamples.size - defined.size
        if defined.size >= undefined:
            low, high = np.percentile(defined, [tail, 100 - tail])
            found[name] = Interval(float(low), float(high), unit, sizes[name], undefined)
    return found


# The metrics below take counts of (resamples, 2, levels), normal before tumor, and the first level
# that is called tumor; they give (resamples,), NaN where undefined.

_CountMetric = Callable[[_Floats, int | None], _Floats]


def _on_counts(metric: _CountMetric, first: int | None) -> Statistic:
    return lambda sums: metric(sums.reshape(len(sums), 2, -1), first)


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


#: How each metric follows from counts, and the classes (0 normal, 1 tumor) that must be on two
#: slides to draw slides.
_METRICS: dict[str, tuple[_CountMetric, list[int]]] = {
    "auroc": (_auroc, [0, 1]),
    "average_precision": (_average_precision, [0, 1]),
    "accuracy": (_accuracy, [0, 1]),
    "balanced_accuracy": (_balanced_accuracy, [0, 1]),
    "sensitivity": (_sensitivity, [1]),
    "specificity": (_specificity, [0]),
}
#: The metrics that need no threshold.
_RANKING = ("auroc", "average_precision")
