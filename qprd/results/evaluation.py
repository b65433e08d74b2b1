"""The last evaluation of a project: the page and the figures that ``qprd evaluate`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue, TypeAdapter, ValidationError

from qprd.errors import QprdError
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout

#: The page, and its figures as JSON, beside the results.
EVALUATION_PAGE = "evaluation.html"
EVALUATION_JSON = "evaluation.json"
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class RecordedMistake:
    """One of the worst mistakes: a place in level-0 pixels, and its raw score.

    Attributes:
        entry_id: Id of the slide's entry; empty in evaluations of an earlier qprd.
    """

    image: str
    x: float
    y: float
    score: float
    entry_id: str = ""


@dataclass(frozen=True)
class RecordedEvaluation:
    """What is read of ``evaluation.json``.

    Attributes:
        bundle: Name of the bundle that predicted.
        created: When it began, ISO 8601, UTC.
        patch: Metrics of the patches by name.
        false_positives: The worst ones, worst first, as in ``misses``.
    """

    bundle: str
    split: str
    created: str
    patch: Mapping[str, JsonValue]
    false_positives: tuple[RecordedMistake, ...] = ()
    misses: tuple[RecordedMistake, ...] = ()


_EVALUATIONS = TypeAdapter(RecordedEvaluation)


def last_evaluation(layout: ProjectLayout) -> RecordedEvaluation | None:
    """The last evaluation; None if it is missing or damaged, as pages only mention it."""
    if not (layout.results / EVALUATION_PAGE).is_file():
        return None
    try:
        file = layout.results / EVALUATION_JSON
        text = read_text(file, what="an evaluation", limit_bytes=_MAX_BYTES)
        return _EVALUATIONS.validate_json(text)
    except (QprdError, ValidationError):
        return None
