"""The list of slides, and the worst mistakes of the last evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError

from qprd.errors import QprdError
from qprd.files.jsonfile import read_text
from qprd.qupath.project import Entry
from qprd.sampling.split_metadata import metadata_split
from qprd.view.predicted import NotFoundError, Results

_EVALUATION = "evaluation.json"
_MAX_EVALUATION_BYTES = 64 * 2**20


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
    result, probability_of = predicted.result, predicted.probability_of
    if "split" not in row and predicted.info is not None:
        row["split"] = predicted.info.training.use_of(result.slide)
    row |= {"tumorMm2": result.tumor_um2 / 1e6, "contours": result.contours}
    if result.slide_score is not None:
        row["score"] = result.slide_score
        if probability_of is not None:
            row["probability"] = float(probability_of(np.array(result.slide_score)))
    return row


@dataclass(frozen=True)
class _Mistake:
    """A mistake as the evaluation lists it: image name, level-0 pixels, raw score."""

    image: str
    x: float
    y: float
    score: float


@dataclass(frozen=True)
class _Evaluation:
    """What is read of the last evaluation."""

    false_positives: tuple[_Mistake, ...]
    misses: tuple[_Mistake, ...]


def worst_mistakes(entries: Sequence[Entry], results: Results) -> dict[str, object]:
    """The worst mistakes by kind, each with the id of its slide; empty without an evaluation."""
    file = results.layout.results / _EVALUATION
    try:
        text = read_text(file, what="an evaluation", limit_bytes=_MAX_EVALUATION_BYTES)
        found = TypeAdapter(_Evaluation).validate_json(text)
    except (QprdError, ValidationError):
        return {}
    names = [entry.name for entry in entries]
    ids = {entry.name: entry.id for entry in entries if names.count(entry.name) == 1}

    def places(mistakes: Sequence[_Mistake]) -> list[dict[str, object]]:
        return [
            {"id": ids[one.image], "name": one.image, "x": one.x, "y": one.y, "score": one.score}
            for one in mistakes
            if one.image in ids and all(map(math.isfinite, (one.x, one.y, one.score)))
        ]

    return {"falsePositives": places(found.false_positives), "misses": places(found.misses)}
