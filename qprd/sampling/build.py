"""From label regions of several slides to one patch table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry import MultiPolygon

from qprd.errors import QprdError
from qprd.sampling.region_index import RegionIndex
from qprd.sampling.regions import LabelRegions
from qprd.sampling.sampler import (
    MAX_FRUITLESS,
    Bounds,
    iter_patches,
    patch_rng,
    sample_stratified,
    stratify,
)
from qprd.sampling.splits import (
    FRACTIONS,
    Split,
    SplitCandidate,
    assign_splits,
    cut_slide,
)
from qprd.sampling.table import LABELS, Label, Patch, PatchTable
from qprd.settings import HELD_OUT_PER_LABEL, TrainConfig

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

_DEFAULTS = TrainConfig()

#: `SamplingRules.max_overlap` inside reviewed regions, where it is larger: these are small, and a
#: patch a little further on is another view of what the model was not sure of, or wrong about.
REVIEWED_OVERLAP = 0.75

#: Asking for pixels this much finer than the slide has is worth a remark.
MAGNIFIED = 1.1


@dataclass(frozen=True)
class SlideRegions:
    """What sampling needs of one slide.

    Attributes:
        entry_id: Id of its entry.
        name: Its name, for messages and the table.
        width: Width of the entry's frame in level-0 pixels.
        height: Height likewise.
        mpp: Micrometres per level-0 pixel.
        regions: Its label regions.
        tissue: Its tissue mask, or None to accept patches without looking at tissue.
        metadata_split: Entry metadata ``split``, or None.
    """

    entry_id: str
    name: str
    width: int
    height: int
    mpp: float
    regions: LabelRegions
    tissue: TissueMask | None = None
    metadata_split: str | None = None

    def region(self, label: Label) -> MultiPolygon:
        """The region of a label."""
        return self.regions.tumor if label == "tumor" else self.regions.normal

    def reviewed(self, label: Label) -> MultiPolygon:
        """The part of a label's region that a review made."""
        return self.regions.accepted if label == "tumor" else self.regions.rejected


@dataclass(frozen=True)
class SamplingRules:
    """What makes a patch acceptable; see `qprd.sampling.sampler.iter_patches`."""

    min_coverage: float = _DEFAULTS.min_coverage
    max_overlap: float = _DEFAULTS.max_overlap
    min_tissue: float = _DEFAULTS.min_tissue
    max_fruitless: int = MAX_FRUITLESS


def build_patch_table(
    slides: Sequence[SlideRegions],
    *,
    normal: int,
    tumor: int,
    patch_px: int,
    mpp: float,
    seed: int,
    val: int | None = None,
    test: int | None = None,
    hard_fraction: float = _DEFAULTS.hard_fraction,
    fractions: tuple[float, float, float] = FRACTIONS,
    rules: SamplingRules | None = None,
) -> PatchTable:
    """Assign splits, share the patches out over the slides, and draw them.

    Validation and test patches are as many normal as tumor ones, where both can be had. The table
    is the same whatever the order of the slides.

    What a person rejected in a review is normal tissue that a model took for tumor, or was not
    sure of; what was accepted likewise tumor. By area, such regions would give hardly a patch
    beside what was drawn. So training patches are drawn from them first, and more densely than
    from the rest, until they are full or have given the share asked for.

    Args:
        slides: All slides of the project that may be used.
        normal: Training patches of normal tissue, at least one.
        tumor: Training patches of tumor; 0 for plain reverse distillation.
        patch_px: Edge of a patch in pixels at ``mpp``.
        mpp: Micrometres per pixel that the model works at.
        seed: Determines splits and positions.
        val: Validation patches of each label; None takes what there is, up to
            `HELD_OUT_PER_LABEL`.
        test: Likewise for test slides, if there are any.
        hard_fraction: Largest share of the training patches of either label that reviewed regions
            give before other tissue does, 0..1.
        fractions: See `assign_splits`.
        rules: When a patch is acceptable.

    Returns:
        Patches ordered by split, label, slide and then as drawn.

    Raises:
        QprdError: Too few patches can be had, or no slide is annotated.
    """
    rules = rules or SamplingRules()
    for option, count, least in (
        ("normal", normal, 1),
        ("tumor", tumor, 0),
        ("val", val, 1),
        ("test", test, 1),
    ):
        if count is not None and count < least:
            raise QprdError(f"{count} {option} patches make no sense; {least} is the least")
    if not patch_px >= 1 or not mpp > 0:
        raise QprdError(f"patches of {patch_px} px at {mpp:g} um/px do not exist")
    splits = assign_splits(
        [
            SplitCandidate(
                s.entry_id,
                s.name,
                s.metadata_split,
                has_tumor=not s.regions.tumor.is_empty,
                has_normal=not s.regions.normal.is_empty,
            )
            for s in slides
        ],
        seed,
        fractions,
    )
    if not splits:
        raise QprdError(
            "no slide has a tumor or a normal region",
            fix="draw tumor in QuPath on at least one slide, and save the project",
        )
    used = sorted((s for s in slides if s.entry_id in splits), key=lambda s: s.entry_id)
    notes = [
        f"{s.name}: {s.mpp:.3g} um/px is coarser than the {mpp:.3g} um/px asked for; "
        "its patches are magnified"
        for s in used
        if s.mpp > mpp * MAGNIFIED
    ]
    if len(used) == 1:
        only = used[0]
        parts = cut_slide(
            only.regions,
            only.width,
            only.height,
            size_px=patch_px * mpp / only.mpp,
            val_fraction=fractions[1] / (fractions[0] + fractions[1]) if fractions[1] else 0.2,
        )
        areas = {split: {only.entry_id: bounds} for split, bounds in parts.items()}
        notes.append(
            f"{only.name} is the only annotated slide: one part of it trains and the other "
            "validates, so the validation is optimistic. Annotate a second slide."
        )
    else:
        areas = {}
        for slide in used:
            bounds = (0.0, 0.0, float(slide.width), float(slide.height))
            areas.setdefault(splits[slide.entry_id], {})[slide.entry_id] = bounds

    draw = _Draw(used, patch_px=patch_px, mpp=mpp, seed=seed, rules=rules)
    patches = draw.exactly(
        "train", areas["train"], {"tumor": tumor, "normal": normal}, hard_fraction
    )
    for split, wanted in (("val", val), ("test", test)):
        if split in areas:
            patches += draw.balanced(split, areas[split], wanted, notes)
    return PatchTable(tuple(patches), tuple(notes))


class _Draw:
    """Draws the patches of one split after the other."""

    def __init__(
        self,
        slides: Sequence[SlideRegions],
        *,
        patch_px: int,
        mpp: float,
        seed: int,
        rules: SamplingRules,
    ) -> None:
        self._slides = {s.entry_id: s for s in slides}
        self._patch_px = patch_px
        self._mpp = mpp
        self._seed = seed
        self._rules = rules

    def exactly(
        self,
        split: Split,
        areas: Mapping[str, Bounds],
        wanted: Mapping[Label, int],
        hard_fraction: float,
    ) -> list[Patch]:
        """As many patches of each label as wanted, or an error."""
        positions = {
            label: self._reviewed_first(split, label, areas, wanted[label], hard_fraction)
            for label in LABELS
        }
        for label in LABELS:
            self._check_enough(split, label, areas, positions[label], wanted[label])
        return self._patches(split, positions)

    def _reviewed_first(
        self,
        split: Split,
        label: Label,
        areas: Mapping[str, Bounds],
        wanted: int,
        hard_fraction: float,
    ) -> dict[str, list[tuple[int, int]]]:
        """Positions in what a review made, up to a share, and then in the whole region."""
        most = round(hard_fraction * wanted)
        hard = self._positions(split, label, areas, most, reviewed=True)
        rest = self._positions(split, label, areas, wanted - sum(map(len, hard.values())))
        return {entry_id: hard.get(entry_id, []) + rest.get(entry_id, []) for entry_id in areas}

    def balanced(
        self, split: Split, areas: Mapping[str, Bounds], wanted: int | None, notes: list[str]
    ) -> list[Patch]:
        """Equally many patches of both labels; what there is if no number is wanted."""
        most = HELD_OUT_PER_LABEL if wanted is None else wanted
        positions = {label: self._positions(split, label, areas, most) for label in LABELS}
        had = {label: sum(map(len, positions[label].values())) for label in LABELS}
        missing = [label for label in LABELS if not had[label]]
        if len(missing) == len(LABELS):
            if split == "test":  # training must not hang on what it does not use
                notes.append("no patch can be had for test")
                return []
            self._check_enough(split, "normal", areas, positions["normal"], most)
        if missing:
            notes.append(
                f"no {missing[0]} patch can be had for {split}; accuracy and threshold need both"
            )
            return self._patches(split, positions)
        if wanted is not None:
            for label in LABELS:
                self._check_enough(split, label, areas, positions[label], wanted)
        count = min(had.values())
        if count < most:
            notes.append(f"{split} has {count} patches of each label instead of {most}")
        for label in LABELS:
            available = {entry_id: len(xy) for entry_id, xy in positions[label].items()}
            quotas = stratify(available, count)
            positions[label] = {e: xy[: quotas[e]] for e, xy in positions[label].items()}
        return self._patches(split, positions)

    def _size_px(self, entry_id: str) -> float:
        return self._patch_px * self._mpp / self._slides[entry_id].mpp

    def _positions(
        self,
        split: Split,
        label: Label,
        areas: Mapping[str, Bounds],
        wanted: int,
        *,
        reviewed: bool = False,
    ) -> dict[str, list[tuple[int, int]]]:
        names = (split, label, "reviewed") if reviewed else (split, label)
        most = self._rules.max_overlap

        def source(entry_id: str, bounds: Bounds) -> Iterator[tuple[int, int]]:
            slide, size_px = self._slides[entry_id], self._size_px(entry_id)
            region = slide.reviewed(label) if reviewed else slide.region(label)
            return iter_patches(
                RegionIndex(region, size_px),
                slide.tissue,
                size_px=size_px,
                bounds=bounds,
                rng=patch_rng(self._seed, entry_id, *names),
                min_coverage=self._rules.min_coverage,
                max_overlap=max(most, REVIEWED_OVERLAP) if reviewed else most,
                min_tissue=self._rules.min_tissue,
                max_fruitless=self._rules.max_fruitless,
            )

        if wanted == 0:
            return {}
        return sample_stratified({e: source(e, b) for e, b in areas.items()}, wanted)

    def _patches(
        self, split: Split, positions: Mapping[Label, Mapping[str, Sequence[tuple[int, int]]]]
    ) -> list[Patch]:
        return [
            Patch(
                slide=entry_id,
                name=self._slides[entry_id].name,
                x=x,
                y=y,
                size_px=self._size_px(entry_id),
                mpp=self._mpp,
                label=label,
                split=split,
                reviewed=reviewed,
            )
            for label in LABELS
            for entry_id, own in positions[label].items()
            for (x, y), reviewed in zip(own, self._reviewed(entry_id, label, own), strict=True)
        ]

    def _reviewed(
        self, entry_id: str, label: Label, positions: Sequence[tuple[int, int]]
    ) -> list[bool]:
        """Which patches lie in what a review made, by as much as patches have to in a region."""
        region, size_px = self._slides[entry_id].reviewed(label), self._size_px(entry_id)
        if region.is_empty or not positions:
            return [False] * len(positions)
        x, y = np.array(positions, np.float64).T
        covered = RegionIndex(region, size_px).coverage(x, y, size_px)
        return [bool(share >= self._rules.min_coverage - 1e-9) for share in covered]

    def _check_enough(
        self,
        split: Split,
        label: Label,
        areas: Mapping[str, Bounds],
        positions: Mapping[str, Sequence[tuple[int, int]]],
        wanted: int,
    ) -> None:
        had = sum(map(len, positions.values()))
        if had >= wanted:
            return
        per_slide = [f"{self._slides[e].name}: {len(positions[e])}" for e in sorted(areas)]
        too_small = sum(
            int((shapely.area(shapely.get_parts(self._slides[e].region(label))) < least).sum())
            for e in areas
            if (least := self._rules.min_coverage * self._size_px(e) ** 2)
        )
        problem = f"only {had} of {wanted} {label} patches can be had for {split}"
        if too_small:
            problem += f"; {too_small} {label} areas are smaller than a patch has to be covered"
        raise QprdError(
            problem,
            where=", ".join(per_slide[:20]) + (", ..." if len(per_slide) > 20 else ""),
            fix=(
                (f"ask for at most {had} (--{label} {had}), " if had else "")
                + f"annotate more, use smaller patches (--patch-px, now {self._patch_px} at "
                f"{self._mpp:g} um/px), or relax --max-overlap (now {self._rules.max_overlap:g}), "
                f"--min-coverage (now {self._rules.min_coverage:g}) or "
                f"--min-tissue (now {self._rules.min_tissue:g})"
            ),
        )
