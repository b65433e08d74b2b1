"""Assign slides to train, val and test, or cut the slide in two if there is only one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import shapely

from qprd.errors import QprdError
from qprd.sampling.regions import LabelRegions
from qprd.sampling.sampler import Bounds
from qprd.slides.fingerprint import SlideIdentity

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: Share of the slides whose metadata names no split that validate; the others train.
VAL_SHARE = 0.2

#: Positions tried along each axis for the cut through a single slide.
_CUTS = 64


@dataclass(frozen=True)
class SplitCandidate:
    """A slide that is to be assigned to a split."""

    entry_id: str
    slide: SlideIdentity
    metadata_split: Split | None
    has_tumor: bool
    has_normal: bool

    @property
    def usable(self) -> bool:
        """Whether the slide has a region of either label."""
        return self.has_tumor or self.has_normal


def assign_splits(slides: Sequence[SplitCandidate], seed: int) -> dict[str, Split]:
    """Assign each usable slide to one split.

    Metadata decides where it is present. The other slides are taken in an order that depends on
    the seed and the entry ids alone: first a training slide with tumor, then a training slide
    with normal tissue and a validation slide (with both labels, if there is one). The rest is
    dealt out to come close to `VAL_SHARE`, separately for slides with and without tumor.

    Images of one slide share its split (see `same_slides`); the metadata of those without a label
    region count for the others.

    Returns:
        The split by entry id. A single usable slide is ``train``; `cut_slide` cuts it in two.

    Raises:
        QprdError: Images of one slide have metadata that name different splits, or there is no
            slide for training or validation.
    """
    if len({s.entry_id for s in slides}) < len(slides):
        raise QprdError(
            "Two slides have the same entry id.", fix="Remove one of them from the project."
        )
    groups = {
        group.entry_id: (group, members) for group, members in map(_as_one, same_slides(slides))
    }
    usable = sorted(
        (group for group, _ in groups.values() if group.usable),
        key=lambda s: _order(seed, s.entry_id),
    )
    if not usable:
        return {}
    assigned = {s.entry_id: s.metadata_split for s in usable if s.metadata_split is not None}
    if len(usable) > 1:
        _assign_needed(usable, assigned)
        _deal_out(usable, assigned)
    else:
        assigned.setdefault(usable[0].entry_id, "train")
        images = [s for s in groups[usable[0].entry_id][1] if s.usable]
        if len(images) > 1:
            raise QprdError(
                "All annotated images show one slide: " + ", ".join(map(_shown, images[:5])) + ".",
                fix="Annotate a second slide, or draw all in one of these images and name it with "
                "--image.",
            )
    _check(usable, assigned)
    for group, members in groups.values():
        if group.usable:
            assigned.update(dict.fromkeys((s.entry_id for s in members), assigned[group.entry_id]))
    return {s.entry_id: assigned[s.entry_id] for s in slides if s.usable}


def same_slides(slides: Sequence[SplitCandidate]) -> list[list[SplitCandidate]]:
    """Group the images that must share a split.

    These are images of one file, or of copies of it, that overlap. Other parts of one file join
    them, unless their metadata set them apart or there is no other file.

    Raises:
        QprdError: Images that overlap have metadata that name different splits.
    """
    files: dict[str, list[SplitCandidate]] = defaultdict(list)
    for slide in slides:
        files[slide.slide.fingerprint or slide.entry_id].append(slide)
    only_file = sum(any(s.usable for s in members) for members in files.values()) < 2
    groups: list[list[SplitCandidate]] = []
    for members in files.values():
        parts = _overlapping(members)
        splits = [_agreed_split(part) for part in parts]
        if only_file:
            groups += parts
            continue
        named = sorted({split for split in splits if split is not None}, key=SPLITS.index)
        by_split: dict[Split | None, list[SplitCandidate]] = defaultdict(list)
        for part, split in zip(parts, splits, strict=True):
            by_split[split or next(iter(named), None)] += part
        groups += by_split.values()
    return groups


def _overlapping(slides: Sequence[SplitCandidate]) -> list[list[SplitCandidate]]:
    """Group images of one file into parts of it that do not overlap."""
    parts: list[list[SplitCandidate]] = []
    for slide in slides:
        apart: list[list[SplitCandidate]] = []
        joined: list[SplitCandidate] = []
        for part in parts:
            if any(slide.slide.is_same_as(other.slide) for other in part):
                joined += part
            else:
                apart.append(part)
        parts = [*apart, [*joined, slide]]
    return parts


def _agreed_split(slides: Sequence[SplitCandidate]) -> Split | None:
    """The split that the metadata of images of one slide name."""
    named = {s.metadata_split: s for s in slides if s.metadata_split is not None}
    if len(named) > 1:
        listed = " and ".join(f"{_shown(s)} in {split}" for split, s in named.items())
        raise QprdError(
            f"Images of one slide are in different splits: {listed}.",
            fix="Set their metadata 'split' in QuPath to the same value, or remove one of the "
            "images from the project.",
        )
    return next(iter(named), None)


def _shown(slide: SplitCandidate) -> str:
    return f"{slide.slide.name} (id {slide.entry_id})"


def _as_one(slides: Sequence[SplitCandidate]) -> tuple[SplitCandidate, Sequence[SplitCandidate]]:
    """Images of one slide as one candidate, and the images."""
    first = min(slides, key=lambda s: s.entry_id)
    return SplitCandidate(
        first.entry_id,
        first.slide,
        next((s.metadata_split for s in slides if s.metadata_split is not None), None),
        has_tumor=any(s.has_tumor for s in slides),
        has_normal=any(s.has_normal for s in slides),
    ), slides


def apart_notes(slides: Sequence[SplitCandidate], splits: Mapping[str, Split]) -> list[str]:
    """Say which parts of one file are in different splits."""
    files: dict[str, list[SplitCandidate]] = defaultdict(list)
    for slide in slides:
        if slide.slide.fingerprint is not None and slide.entry_id in splits:
            files[slide.slide.fingerprint].append(slide)
    return [
        "parts of one file are in different splits, so the figures are optimistic: "
        + ", ".join(f"{_shown(s)} in {splits[s.entry_id]}" for s in members)
        for members in files.values()
        if len({splits[s.entry_id] for s in members}) > 1
    ]


def splits_without(
    slides: Sequence[SplitCandidate],
    left_out: Sequence[SplitCandidate],
    seed: int,
) -> tuple[dict[str, Split], list[str]]:
    """Assign splits as `assign_splits` does; a slide that cannot be read moves no other slide.

    Only if those that are left out were all that a split had, are splits assigned without them.
    Among them are images without a label region, whose metadata hold for others of the same slide.

    Returns:
        The split of each usable slide by entry id, and notes for the user.

    Raises:
        QprdError: as `assign_splits`.
    """
    planned = assign_splits([*slides, *left_out], seed)
    lost = [s for s in left_out if s.entry_id in planned]
    kept = {s.entry_id: planned[s.entry_id] for s in slides if s.entry_id in planned}
    with_tumor = {s.entry_id for s in slides if s.has_tumor}
    needed = {"train", "val"} if len(kept) > 1 else {"train"}
    trains_on_tumor = any(kept.get(s) == "train" for s in with_tumor) or not with_tumor
    if needed <= set(kept.values()) and trains_on_tumor:
        return kept, []
    others = (s for s in left_out if not s.usable)
    assigned = assign_splits([*slides, *others], seed)
    moved = [s.slide.name for s in slides if assigned.get(s.entry_id) != kept.get(s.entry_id)]
    if not lost or not moved:
        return assigned, []
    gone = ", ".join(f"{s.slide.name} ({planned[s.entry_id]})" for s in lost)
    note = f"without {gone} the splits had to be assigned anew: {', '.join(moved)} moved"
    return assigned, [note]


def _order(seed: int, entry_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{entry_id}".encode("utf-8", "surrogatepass")).digest()


def _assign_needed(usable: Sequence[SplitCandidate], assigned: dict[str, Split]) -> None:
    """Choose the slides that training and validation cannot do without."""

    def free() -> list[SplitCandidate]:
        return [s for s in usable if s.entry_id not in assigned]

    def having(split: Split) -> list[SplitCandidate]:
        return [s for s in usable if assigned.get(s.entry_id) == split]

    def take(split: Split, wishes: Sequence[SplitCandidate]) -> None:
        if wishes:
            assigned[wishes[0].entry_id] = split

    if not any(s.has_tumor for s in having("train")):
        tumor = [s for s in free() if s.has_tumor]
        # A slide with tumor alone is no loss to validation, which wants both labels.
        tumor_only = [s for s in tumor if not s.has_normal]
        enough_normal = any(s.has_normal for s in having("train")) or len(free()) > 2
        one_complete = sum(s.has_normal for s in tumor) == 1
        take("train", tumor_only if tumor_only and enough_normal and one_complete else tumor)
    needs_val = not having("val")
    spare = len(free()) - needs_val
    if spare > 0 and not any(s.has_normal for s in having("train")):
        normal = [s for s in free() if s.has_normal]
        take("train", [s for s in normal if not s.has_tumor] or normal)
    if needs_val:
        val = free()
        both = [s for s in val if s.has_tumor and s.has_normal]
        take("val", both or [s for s in val if s.has_tumor] or val)
    if not having("train"):
        take("train", free())


def _deal_out(usable: Sequence[SplitCandidate], assigned: dict[str, Split]) -> None:
    """Assign each slide that is left to the split that lacks most, tumor slides separately."""
    for has_tumor in (True, False):
        stratum = [s for s in usable if s.has_tumor == has_tumor]
        targets = np.array([1 - VAL_SHARE, VAL_SHARE, 0]) * len(stratum)
        decided = [assigned.get(s.entry_id) for s in stratum]
        counts = np.array([decided.count(split) for split in SPLITS])
        for slide in stratum:
            if slide.entry_id in assigned:
                continue
            most = int(np.argmax(targets - counts))
            assigned[slide.entry_id] = SPLITS[most]
            counts[most] += 1


def _check(usable: Sequence[SplitCandidate], assigned: dict[str, Split]) -> None:
    splits = set(assigned.values())
    for split, purpose in (("train", "training"), ("val", "validation")):
        if split not in splits and (split == "train" or len(usable) > 1):
            raise QprdError(
                f"The metadata 'split' leaves no slide for {purpose}.",
                where=", ".join(f"{s.slide.name}: {assigned[s.entry_id]}" for s in usable),
                fix=f"Set the metadata 'split' of an annotated slide to {split}, or remove it.",
            )


def cut_slide(
    regions: LabelRegions,
    width: int,
    height: int,
    *,
    size_px: float,
    val_fraction: float = VAL_SHARE,
) -> dict[Split, Bounds]:
    """Cut a single slide in two, one part to train and one to validate.

    Of all vertical and horizontal cuts, choose the one that gives validation a share of each label
    region as close as possible to ``val_fraction``, with room for a patch of ``size_px`` in each
    part. Patches must lie wholly within their part, so one that straddles the cut is in neither.

    Returns:
        Left, top, right and bottom edge of both parts, in level-0 pixels.

    Raises:
        QprdError: No cut leaves some of each label in both parts.
    """
    labels = [r for r in (regions.tumor_region, regions.normal_region) if not r.is_empty]
    best: tuple[float, dict[Split, Bounds]] | None = None
    for axis, extent in ((0, width), (1, height)):
        edges = np.linspace(0, extent, _CUTS + 1)
        strips = [
            _clip(edges[i], edges[i + 1], axis=axis, width=width, height=height)
            for i in range(_CUTS)
        ]
        areas = np.array(
            [[shapely.clip_by_rect(r, *strip).area for strip in strips] for r in labels]
        )
        before = np.cumsum(areas, axis=1)[:, :-1]
        shares = before / areas.sum(axis=1, keepdims=True)
        room = size_px**2 / areas.sum(axis=1, keepdims=True)
        for val_first, val in ((True, shares), (False, 1 - shares)):
            possible = ((val >= room) & (1 - val >= room)).all(axis=0)
            misses = np.where(possible, np.abs(val - val_fraction).max(axis=0), np.inf)
            i = int(np.argmin(misses))
            if np.isfinite(misses[i]) and (best is None or misses[i] < best[0]):
                first = _clip(0, edges[i + 1], axis=axis, width=width, height=height)
                second = _clip(edges[i + 1], extent, axis=axis, width=width, height=height)
                parts: dict[Split, Bounds] = (
                    {"train": second, "val": first}
                    if val_first
                    else {"train": first, "val": second}
                )
                best = float(misses[i]), parts
    if best is None:
        raise QprdError(
            "There is only one annotated slide, and no straight cut through it leaves some of "
            "each label on both sides.",
            fix="Annotate a second slide.",
        )
    return best[1]


def _clip(low: float, high: float, *, axis: int, width: int, height: int) -> Bounds:
    if axis == 0:
        return (float(low), 0.0, float(high), float(height))
    return (0.0, float(low), float(width), float(high))
