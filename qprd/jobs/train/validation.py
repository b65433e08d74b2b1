"""What the validation slides decide once a model is trained: threshold and probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from qprd.checked import MAX_PATCHES, Rule
from qprd.errors import QprdError
from qprd.evaluation.calibration import Isotonic, Platt, Uncalibrated, fit_calibration
from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import (
    MAX_FALSE_POSITIVES,
    Achieved,
    FalsePositives,
    NoThreshold,
    ValidationScores,
    achieved_at,
    choose_threshold,
)
from qprd.results.lesion_points import lesion_points
from qprd.sampling.build import SlideRegions
from qprd.sampling.table import PatchTable
from qprd.scoring.scorer import SlideScorer
from qprd.slides.slide import Slide

#: Labeled shares of a slide's tissue below this are told.
_LITTLE = 0.5


@dataclass(frozen=True)
class Validated:
    """Threshold and probability, or why there are none.

    Attributes:
        threshold: Raw score from which tissue counts as tumor.
        achieved: What it achieves on the validation data.
        scores: All that it was chosen from; None without validation patches.
        calibration: From raw scores to probabilities.
        uncalibrated: Why there is no calibration, in one sentence; None if there is one.
        notes: What the user should know.
    """

    threshold: float | None
    achieved: Achieved | None
    scores: ValidationScores | None
    calibration: Platt | Isotonic | None
    uncalibrated: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BothWays:
    """What was decided for scores patch by patch, and for scores from large fields.

    Attributes:
        exact: For the former.
        dense: For the latter; None if they shall not or cannot be used.
        notes: What the user should know, also of the way that predicts.
        interrupted: Ctrl-C ended it.
    """

    exact: Validated
    dense: Validated | None
    notes: tuple[str, ...]
    interrupted: bool

    @property
    def used(self) -> Validated:
        """That of the way which predicts unless something else is asked for."""
        return self.exact if self.dense is None else self.dense

    @property
    def dense_auroc(self) -> float | None:
        """AUROC of the validation patches from large fields; None if it is not defined."""
        if self.dense is None or self.dense.scores is None:
            return None
        return auroc(*self.dense.scores.labeled())


@dataclass(frozen=True)
class Counted:
    """The search for false positives.

    Attributes:
        found: None if no slide could be scored, or not all before the interruption.
        notes: What the user should know.
        interrupted: Ctrl-C ended it.
    """

    found: FalsePositives | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False


def require_possible(rule: Rule, table: PatchTable, slides: Sequence[SlideRegions]) -> None:
    """Find out before the training that the rule has nothing to choose from.

    Raises:
        QprdError: it has not; or there are more validation patches than a bundle holds.
    """
    val = table.subset("val").patches
    most = max(Counter(patch.label for patch in val).values(), default=0)
    if most > MAX_PATCHES:
        raise QprdError(
            f"There are {most} validation patches of a class; {MAX_PATCHES} can be used.",
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


def count_false_positives(
    table: PatchTable,
    slides: Sequence[SlideRegions],
    open_slide: Callable[[str], Slide],
    scorer: SlideScorer,
) -> Counted:
    """Score the validation slides whole, and take the lesion points in what is labeled normal.

    Labeled normal are the drawn normal regions, or, where none are drawn, the tissue away from
    tumor: what the normal patches come from. A point elsewhere is neither right nor wrong. A
    slide that cannot be scored is noted and left out.

    Args:
        table: Says which slides validate.
        slides: Their label regions.
        open_slide: Opens the slide of an entry.
        scorer: The trained model.
    """
    chosen = _with_normal({patch.slide for patch in table.subset("val").patches}, slides)
    scores: list[NDArray[np.float64]] = []
    notes = []
    for regions in chosen:
        try:
            scores.append(_false_positives(regions, open_slide, scorer))
            notes += _little_labeled(regions)
        except QprdError as error:
            notes.append(error.told_of(regions.name))
        except KeyboardInterrupt:
            return Counted(None, tuple(notes), interrupted=True)
    if not scores:
        return Counted(None, tuple(notes))
    highest = np.sort(np.concatenate(scores))[::-1][:MAX_FALSE_POSITIVES]
    return Counted(FalsePositives(tuple(highest.tolist()), len(scores)), tuple(notes))


def validate_both_ways(
    scores: NDArray[np.float32] | None,
    table: PatchTable,
    slides: Sequence[SlideRegions],
    open_slide: Callable[[str], Slide],
    scorer: SlideScorer,
    *,
    rule: Rule,
    count: bool,
    seed: int,
) -> BothWays:
    """Choose threshold and probability for either way of scoring.

    False positives are counted in the way that predicts alone: patch by patch it takes long.

    Args:
        scores: Of the validation patches, patch by patch; None without any.
        table: The patches.
        slides: Label regions of all slides.
        open_slide: Opens the slide of an entry.
        scorer: The trained model; if it is exact, there is no other way.
        rule: Chooses the threshold.
        count: Count false positives, if the rule needs them.
        seed: Of the folds of the cross-validation.
    """
    val = table.subset("val")
    tumor = np.array([patch.label == "tumor" for patch in val.patches], np.bool_)
    names = [patch.slide for patch in val.patches]
    notes: list[str] = []
    from_fields, interrupted = None, False
    if not scorer.exact:
        try:
            from_fields = scorer.patch_scores(val, open_slide)
        except QprdError as error:
            notes.append(f"no threshold for scores from large fields: {error}")
        except KeyboardInterrupt:
            interrupted = True
        if from_fields is None:
            scorer = replace(scorer, exact=True)
    counted = Counted()
    if count and rule.name == "fp-per-slide" and not interrupted:
        counted = count_false_positives(table, slides, open_slide, scorer)
    patch_by_patch = validate(
        scores,
        tumor,
        names,
        rule,
        false_positives=counted.found if scorer.exact else None,
        seed=seed,
    )
    dense = None
    if from_fields is not None:
        dense = validate(from_fields, tumor, names, rule, false_positives=counted.found, seed=seed)
    used = patch_by_patch if dense is None else dense
    return BothWays(
        exact=patch_by_patch,
        dense=dense,
        notes=(*notes, *counted.notes, *used.notes),
        interrupted=interrupted or counted.interrupted,
    )


def validate(
    scores: NDArray[np.float32] | None,
    tumor: NDArray[np.bool_],
    slides: Sequence[str],
    rule: Rule,
    *,
    false_positives: FalsePositives | None = None,
    seed: int,
) -> Validated:
    """Choose the threshold and fit the probability.

    Args:
        scores: Raw scores of the validation patches, (n,); None without any.
        tumor: (n,).
        slides: Slide of each patch, (n,).
        rule: Chooses the threshold.
        false_positives: What `count_false_positives` found, if it was asked.
        seed: Of the folds of the cross-validation.
    """
    if scores is None or not scores.size:
        reason = "no validation patches"
        return Validated(None, None, None, None, reason, (_without(reason),))
    validation = ValidationScores.of(tumor, scores, false_positives)
    chosen = choose_threshold(rule, validation)
    threshold = None if isinstance(chosen, NoThreshold) else chosen
    fitted = fit_calibration(tumor, scores, slides, seed=seed)
    calibration = None if isinstance(fitted, Uncalibrated) else fitted
    notes = []
    if isinstance(chosen, NoThreshold):
        notes.append(_without(chosen.reason))
    elif _is_lowest_of_all(rule, false_positives):
        notes.append(
            f"{rule}: the validation slides have no more false positives at any threshold, so that "
            "the lowest score of one was taken and nearly all is tumor; ask for fewer"
        )
    if isinstance(fitted, Uncalibrated):
        notes.append(f"no probability: {fitted.reason}")
    elif fitted.reliability is not None and fitted.reliability.log_loss_isotonic is None:
        notes.append(f"probability: {fitted.reliability.reason}")
    return Validated(
        threshold=threshold,
        achieved=None if threshold is None else achieved_at(threshold, validation),
        scores=validation,
        calibration=calibration,
        uncalibrated=fitted.reason if isinstance(fitted, Uncalibrated) else None,
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
    return [s for s in slides if s.entry_id in chosen and not s.regions.normal.is_empty]


def _little_labeled(regions: SlideRegions) -> list[str]:
    assert regions.tissue is not None
    tissue = regions.tissue.to_polygons()
    share = shapely.intersection(tissue, regions.regions.normal).area / tissue.area
    if share >= _LITTLE:
        return []
    return [
        f"{regions.name}: false positives were counted in {share:.0%} of the tissue, the part that "
        "is labeled normal; in all of it there are more"
    ]


def _false_positives(
    regions: SlideRegions, open_slide: Callable[[str], Slide], scorer: SlideScorer
) -> NDArray[np.float64]:
    assert regions.tissue is not None
    with open_slide(regions.entry_id) as slide:
        score_map = scorer.score(f"validating on {regions.name}", slide, regions.tissue)
    found = lesion_points(score_map)
    normal = regions.regions.normal
    shapely.prepare(normal)
    inside: NDArray[np.bool_] = shapely.contains_xy(normal, found.x, found.y)
    return found.scores[inside]
