"""Validation of a trained model: the slides that choose its threshold and its probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from qprd.bundle.records import ScoringInfo
from qprd.checked import MAX_PATCHES, Rule
from qprd.errors import QprdError
from qprd.evaluation.calibration import Uncalibrated, fit_calibration
from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import (
    MAX_FALSE_POSITIVES,
    FalsePositives,
    NoThreshold,
    ValidationScores,
    accuracy_threshold,
    achieved_at,
    choose_threshold,
)
from qprd.jobs.train.summary import ValidationFigures
from qprd.results.lesion_points import lesion_points
from qprd.sampling.build import SlideRegions
from qprd.sampling.table import PatchTable
from qprd.scoring.scorer import SlideScorer
from qprd.slides.slide import Slide

#: If a smaller share of a slide's tissue is labeled, a note says so.
_SMALL_SHARE = 0.5


@dataclass(frozen=True)
class Validation:
    """The decisions of a validation.

    Attributes:
        scoring: The way of scoring slides, with threshold, calibration and validation scores, as
            far as there are any.
        no_probability: Why there is no calibration, in one sentence; None if there is one.
    """

    scoring: ScoringInfo
    figures: ValidationFigures
    no_probability: str | None
    notes: tuple[str, ...]


def require_possible(rule: Rule, table: PatchTable, slides: Sequence[SlideRegions]) -> None:
    """Find out before the training that the rule has nothing to choose from.

    Raises:
        QprdError: it has not; or there are more validation patches than a bundle holds.
    """
    val = table.subset("val").patches
    larger = max(Counter(patch.label for patch in val).values(), default=0)
    if larger > MAX_PATCHES:
        raise QprdError(
            f"There are {larger} validation patches of a class; {MAX_PATCHES} can be used.",
            where="--patches",
            fix="Leave some out of the table.",
        )
    if rule.name != "fp-per-slide":
        return
    chosen = {patch.slide for patch in val}
    if not chosen:
        problem = "there are no validation slides"
    elif chosen & {patch.slide for patch in table.subset("train").patches}:
        problem = "the slide that validates also trains"
    elif not _with_normal(chosen, slides):
        problem = "no validation slide has anything that is labeled normal"
    else:
        return
    raise QprdError(
        f"False positives a slide cannot be counted: {problem}.",
        where="--operating-point",
        fix="Annotate another slide and give it the metadata split = val, or use another rule.",
    )


def validate(
    patch_scores: NDArray[np.float32] | None,
    table: PatchTable,
    slides: Sequence[SlideRegions],
    open_slide: Callable[[str], Slide],
    scorer: SlideScorer,
    *,
    rule: Rule,
    seed: int,
) -> Validation:
    """Score the validation patches as slides are scored, and choose threshold and probability.

    A slide that cannot be read there is left out. If none can, the model scores patch by patch,
    which the training has done already.

    Args:
        patch_scores: Raw scores (n,) of the validation patches, patch by patch; None without any.
        table: Patches of training and validation.
        slides: Label regions of all slides.
        open_slide: Opens the slide of an entry, by id.
        scorer: Scores slides with the trained model.
        rule: Chooses the threshold.
        seed: Draws the folds of the cross-validation.
    """
    val = table.subset("val")
    scores, notes = patch_scores, list[str]()
    false_positives = None
    if scorer.scoring == "fields":
        try:
            found, unreadable = scorer.patch_scores_from_fields(val, open_slide)
            if val.patches and unreadable.keys() == {patch.slide for patch in val.patches}:
                raise next(iter(unreadable.values()))
            notes += [
                error.line_about(f"{_name_of(entry_id, slides)}, not validated on")
                for entry_id, error in unreadable.items()
            ]
            readable = tuple(p for p in val.patches if p.slide not in unreadable)
            scores = found[[patch.slide not in unreadable for patch in val.patches]]
            val = replace(val, patches=readable)
        except QprdError as error:
            notes.append(
                "slides are scored patch by patch, which is slower, because the validation patches "
                f"cannot be scored from large fields: {error}"
            )
            scorer = replace(scorer, scoring="patches")
    if rule.name == "fp-per-slide":
        false_positives = count_false_positives(table, slides, open_slide, scorer, notes)
    decided = _decide(
        ScoringInfo(scorer.scoring, scorer.patch_score, threshold=None),
        val.is_tumor,
        scores,
        slides=[patch.slide for patch in val.patches],
        rule=rule,
        false_positives=false_positives,
        seed=seed,
    )
    return replace(decided, notes=(*notes, *decided.notes))


def _name_of(entry_id: str, slides: Sequence[SlideRegions]) -> str:
    return next(slide.name for slide in slides if slide.entry_id == entry_id)


def count_false_positives(
    table: PatchTable,
    slides: Sequence[SlideRegions],
    open_slide: Callable[[str], Slide],
    scorer: SlideScorer,
    notes: list[str],
) -> FalsePositives | None:
    """Score the validation slides whole, and take the lesion points in what is labeled normal.

    Labeled normal are the drawn normal regions, or, where none are drawn, the tissue away from
    tumor: what the normal patches come from. A point elsewhere is neither right nor wrong. A
    slide that cannot be scored is noted and left out.

    Returns:
        None if no slide could be scored.
    """
    scores: list[NDArray[np.float64]] = []
    for regions in _with_normal({patch.slide for patch in table.subset("val").patches}, slides):
        try:
            scores.append(_false_positives(regions, open_slide, scorer))
            notes += _little_labeled(regions)
        except QprdError as error:
            notes.append(error.line_about(regions.name))
    if not scores:
        return None
    highest = np.sort(np.concatenate(scores))[::-1][:MAX_FALSE_POSITIVES]
    return FalsePositives(tuple(highest.tolist()), len(scores))


def _decide(
    scoring: ScoringInfo,
    y_true: NDArray[np.bool_],
    scores: NDArray[np.float32] | None,
    *,
    slides: Sequence[str],
    rule: Rule,
    false_positives: FalsePositives | None,
    seed: int,
) -> Validation:
    """Choose the threshold and fit the probability, on patches with labels and scores (n,)."""
    figures = ValidationFigures(scoring.by, str(rule))
    if scores is None or not scores.size:
        reason = "no validation patches"
        return Validation(scoring, figures, reason, (_without(reason),))
    validation = ValidationScores.of(y_true, scores, false_positives)
    chosen = choose_threshold(rule, validation)
    threshold = None if isinstance(chosen, NoThreshold) else chosen
    fitted = fit_calibration(y_true, scores, slides, seed=seed)
    calibration = None if isinstance(fitted, Uncalibrated) else fitted
    notes = []
    if isinstance(chosen, NoThreshold):
        notes.append(_without(chosen.reason))
    elif _is_lowest_of_all(rule, false_positives):
        notes.append(
            f"{rule}: the validation slides never have so many false positives. The threshold is "
            "the lowest score of one, at which nearly everything is tumor; ask for fewer"
        )
    if isinstance(fitted, Uncalibrated):
        notes.append(f"no probability: {fitted.reason}")
    elif fitted.reliability is not None and fitted.reliability.log_loss_isotonic is None:
        notes.append(f"probability: {fitted.reliability.reason}")
    best = accuracy_threshold(y_true, scores)
    return Validation(
        replace(scoring, threshold=threshold, calibration=calibration, validation=validation),
        replace(
            figures,
            accuracy=None if best is None else best.accuracy,
            auroc=auroc(y_true, scores),
            threshold=threshold,
            achieved=None if threshold is None else achieved_at(threshold, validation),
            calibration=None if calibration is None else calibration.reliability,
        ),
        no_probability=fitted.reason if isinstance(fitted, Uncalibrated) else None,
        notes=tuple(notes),
    )


def _is_lowest_of_all(rule: Rule, found: FalsePositives | None) -> bool:
    if rule.name != "fp-per-slide" or rule.value is None or found is None:
        return False
    return len(found.scores) <= rule.value * found.slides


def _without(reason: str) -> str:
    return (
        f"the model has no threshold: {reason}; predict with --threshold or --operating-point, or "
        "annotate a second slide"
    )


def _with_normal(chosen: set[str], slides: Sequence[SlideRegions]) -> list[SlideRegions]:
    return [s for s in slides if s.entry_id in chosen and s.has_normal]


def _little_labeled(regions: SlideRegions) -> list[str]:
    assert regions.tissue is not None
    tissue = regions.tissue.to_polygons()
    labeled = shapely.intersection(tissue, regions.regions.normal_region).area
    if labeled >= _SMALL_SHARE * tissue.area:
        return []
    return [
        f"{regions.name}: false positives were counted in {labeled / tissue.area:.0%} of the "
        "tissue, the part that is labeled normal; in all of it there are more"
    ]


def _false_positives(
    regions: SlideRegions, open_slide: Callable[[str], Slide], scorer: SlideScorer
) -> NDArray[np.float64]:
    assert regions.tissue is not None
    with open_slide(regions.entry_id) as slide:
        score_map = scorer.score(f"validating on {regions.name}", slide, regions.tissue)
    found = lesion_points(score_map)
    normal = regions.regions.normal_region
    shapely.prepare(normal)
    inside: NDArray[np.bool_] = shapely.contains_xy(normal, found.x, found.y)
    return found.scores[inside]
