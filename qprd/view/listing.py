"""The list of slides, and the worst mistakes of the last evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from qprd.errors import QprdError
from qprd.qupath.project import Entry
from qprd.results.evaluation import RecordedMistake, last_evaluation
from qprd.sampling.split_metadata import metadata_split
from qprd.view.predicted import NotFoundError, Results


def slide_row(entry: Entry, results: Results) -> dict[str, object]:
    """A slide as the list shows it; what is not known of it is left out."""
    row: dict[str, object] = {"id": entry.id, "name": entry.name}
    try:
        if (split := metadata_split(entry.metadata, entry.name)) is not None:
            row["split"] = split
        predicted = results.load(entry)
    except NotFoundError:
        return row
    except QprdError as error:
        return {**row, "problem": error.problem}
    result = predicted.result
    if "split" not in row and predicted.info is not None:
        row["split"] = predicted.info.training.use_of(result.slide)
    return row | {
        "tumorMm2": result.tumor_um2 / 1e6,
        "contours": result.contours,
        "score": result.slide_score,
        "probability": predicted.probability(result.slide_score),
    }


def worst_mistakes(entries: Mapping[str, Entry], results: Results) -> dict[str, object]:
    """The worst mistakes by kind, each with its slide and its place; empty without an evaluation.

    Those on slides that are not among the entries, or that another bundle has scored since, are
    left out.
    """
    evaluation = last_evaluation(results.layout)
    if evaluation is None:
        return {}

    def is_shown(one: RecordedMistake) -> bool:
        if one.entry_id not in entries or not all(map(math.isfinite, (one.x, one.y, one.score))):
            return False
        try:
            return results.load(entries[one.entry_id]).result.bundle == evaluation.bundle
        except QprdError:
            return False

    def places(mistakes: Sequence[RecordedMistake]) -> list[dict[str, object]]:
        return [
            {"id": one.entry_id, "name": one.image, "x": one.x, "y": one.y, "score": one.score}
            for one in mistakes
            if is_shown(one)
        ]

    return {
        "split": evaluation.split,
        "falsePositives": places(evaluation.false_positives),
        "misses": places(evaluation.misses),
    }
