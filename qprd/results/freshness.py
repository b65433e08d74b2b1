"""The record of what a result was made from, which shows whether it is still up to date."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

#: Raised whenever this qprd would make another result of the same slide, bundle and settings.
RESULT_FORMAT = 1
OTHER_VERSION = "it was made by another version of qprd"


@dataclass(frozen=True)
class MadeFrom:
    """What a result was made from: a digest of each thing that influences it.

    Attributes:
        bundle: The bundle's files.
        settings: The settings of the prediction, as resolved.
        slide: The slide's pixels, its frame and its resolution.
        tissue: What is drawn as tissue; empty if tissue is found by color.
        scores: The settings that decide the scores, and not only what is made of them; empty in
            results of an earlier qprd.
        file: Size and time of the slide's file, and what the project says of the slide. As long as
            they are the same, the slide need not be opened to know that it is.
        format: `RESULT_FORMAT` at that time.
    """

    bundle: str
    settings: str
    slide: str
    tissue: str
    file: str = ""
    scores: str = ""
    format: int = RESULT_FORMAT


@dataclass(frozen=True)
class Freshness:
    """Whether a result is what a prediction would give now.

    Attributes:
        state: ``fresh``, ``stale``, or ``missing`` if there is no complete result.
        reason: Why it is stale, to follow a colon; else empty.
        keeps_scores: Whether it is stale only by what is made of its scores, which are what they
            would be now: threshold, contours, slide score.
    """

    state: Literal["fresh", "stale", "missing"]
    reason: str = ""
    keeps_scores: bool = False

    @property
    def is_fresh(self) -> bool:
        """Whether the slide need not be scored."""
        return self.state == "fresh"


def compare(recorded: MadeFrom, now: MadeFrom) -> Freshness:
    """Judge a result by its record and by what it would be made from now."""
    if recorded.format != now.format:
        return Freshness("stale", OTHER_VERSION)
    changed = {
        name: reason
        for name, reason in (
            ("bundle", "it was made by another bundle"),
            ("settings", "it was made with other settings"),
            ("slide", "the slide, its frame or its resolution is another one now"),
            ("tissue", "what is drawn as tissue has changed"),
        )
        if getattr(recorded, name) != getattr(now, name)
    }
    if not changed:
        return Freshness("fresh")
    keeps_scores = changed.keys() == {"settings"} and recorded.scores == now.scores != ""
    return Freshness("stale", next(iter(changed.values())), keeps_scores)


def digest(value: object) -> str:
    """A short digest of anything that JSON can write; other values count as their text."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
