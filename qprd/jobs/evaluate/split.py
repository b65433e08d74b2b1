"""Choice of the slides of an evaluation, given what the model has already seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qprd.bundle.records import by_name_note
from qprd.errors import QprdError
from qprd.qupath.entry_slides import identity_of, name_list
from qprd.qupath.project import Entry
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import SPLITS

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo, Use

EvaluatedSplit = Literal["test", "val", "all"]

_BARE = "without annotations"
#: What the reader must know of slides that the model was not blind to, by what it used them for.
_SEEN_NOTES = {
    "train": "the model was trained on these, so the figures say little about new slides",
    "val": "these chose the model's threshold and calibration, and its epoch with --recipe paper, "
    "so the figures are optimistic",
}


@dataclass(frozen=True)
class ChosenSlides:
    """The slides of a split.

    Attributes:
        entries: Its annotated slides in project order.
    """

    split: EvaluatedSplit
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def choose_slides(
    annotated: Sequence[Entry],
    bare: Sequence[Entry],
    info: BundleInfo,
    asked: EvaluatedSplit | None,
) -> ChosenSlides:
    """Choose the slides of a split; a training slide is never a test or validation slide.

    A slide's split is its entry metadata ``split``, or else what the bundle used it for; an
    annotated slide that the bundle did not use is a test slide. The bundle knows a slide by its
    fingerprint, whatever its name. If no split is asked for, it is that of the test slides, or
    without any of the validation slides. ``bare`` slides have no annotations.

    Raises:
        QprdError: There is no slide in the split, or a slide's metadata name no split.
    """
    seen: dict[str, Use] = {}
    split_of: dict[str, str] = {}
    conflicts: list[str] = []
    parts: list[Entry] = []
    for entry in annotated:
        slide = identity_of(entry)
        if use := info.training.use_of(slide):
            seen[entry.id] = use
        elif info.training.uses_file_of(slide):
            parts.append(entry)
        meant = metadata_split(entry.metadata, entry.name)
        used = seen.get(entry.id)
        split_of[entry.id] = meant or used or "test"
        # Training outweighs metadata, and so does validation where they say test.
        if used == "train" or (used == "val" and meant == "test"):
            split_of[entry.id] = used
            if meant not in (None, used):
                does = "was trained on it" if used == "train" else "was validated on it"
                conflicts.append(
                    f"{entry.name}: its metadata say {meant}, but the model {does}, "
                    f"so it counts as {used}"
                )

    def having(split: EvaluatedSplit) -> tuple[Entry, ...]:
        return tuple(e for e in annotated if split in ("all", split_of[e.id]))

    split: EvaluatedSplit = asked or ("test" if having("test") else "val")
    entries = having(split)
    if not entries:
        there = [(s, tuple(e for e in annotated if split_of[e.id] == s)) for s in SPLITS]
        raise _nothing(asked, [*there, (_BARE, tuple(bare))], where=f"bundle {info.name}")
    notes = [*by_name_note(info), *conflicts]
    if of_used_files := [entry for entry in parts if entry in entries]:
        notes.append(
            "the model was trained or validated on another part of the same file, so the figures "
            f"may be optimistic: {name_list(of_used_files)}"
        )
    if asked is None and split == "val":
        notes.append("there are no annotated test slides: these are the validation slides")
    for seen_as, remark in _SEEN_NOTES.items():
        if those := [entry for entry in entries if seen.get(entry.id) == seen_as]:
            notes.append(f"{remark}: {name_list(those)}")
    left_out = [e for e in bare if metadata_split(e.metadata, e.name) in (split, None)]
    if left_out:
        notes.append(
            "left out, as neither tumor nor normal tissue is drawn on them: " + name_list(left_out)
        )
    return ChosenSlides(split, entries, tuple(notes))


def _nothing(
    asked: EvaluatedSplit | None, there: Sequence[tuple[str, Sequence[Entry]]], where: str
) -> QprdError:
    kinds = {kind: members for kind, members in there if members}
    listed = [f"{kind} ({name_list(members)})" for kind, members in kinds.items()]
    wanted = f"{asked} slides" if asked else "test slides and no validation slides"
    others = "|".join(split for split in ("test", "val") if split in kinds)
    if not set(kinds) & set(SPLITS):
        fix = "Annotate slides in QuPath, and save the project."
    elif others:
        fix = f"Give --split {others}, or annotate a slide that the model has not seen."
    else:
        fix = (
            "Annotate a slide that the model was not trained on, or give --split all to measure "
            "the training slides."
        )
    return QprdError(
        f"There are no annotated {wanted}; there are: {', '.join(listed) or 'none'}.",
        where=where,
        fix=fix,
    )
