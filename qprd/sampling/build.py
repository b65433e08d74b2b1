"""Build one patch table from the label regions of several slides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry import MultiPolygon

from qprd.errors import QprdError
from qprd.files.packed import PackedValues
from qprd.qupath.entry_slides import name_list
from qprd.sampling.region_index import RegionIndex
from qprd.sampling.regions import LabelRegions
from qprd.sampling.sampler import Bounds, iter_patches, patch_rng, sample_stratified, stratify
from qprd.sampling.splits import Split, SplitCandidate, apart_notes, cut_slide, splits_without
from qprd.sampling.table import LABELS, Label, Patch, PatchTable
from qprd.settings import HELD_OUT_PER_LABEL, TrainConfig
from qprd.slides.fingerprint import SlideIdentity

if TYPE_CHECKING:
    from qprd.slides.tissue import TissueMask

#: Setting ``max_overlap`` inside reviewed regions, where it is larger: these are small, and a
#: shifted patch is another view of what the model was unsure of or wrong about.
REVIEWED_OVERLAP = 0.75


@dataclass(frozen=True)
class SlideRegions:
    """One slide with its label regions, ready to be sampled.

    Attributes:
        reviewed_labels: Labels of which a part of the region comes from a review.
        load: Gives the label regions and the tissue mask.
    """

    entry_id: str
    identity: SlideIdentity
    width: int
    height: int
    mpp: float
    has_tumor: bool
    has_normal: bool
    reviewed_labels: frozenset[Label]
    load: Callable[[], tuple[LabelRegions, TissueMask | None]]
    metadata_split: Split | None = None

    @classmethod
    def of(
        cls,
        entry_id: str,
        identity: SlideIdentity,
        frame: tuple[int, int, float],
        *,
        regions: LabelRegions,
        tissue: TissueMask | None = None,
        metadata_split: Split | None = None,
    ) -> SlideRegions:
        """Make the record of a slide.

        Args:
            entry_id: Id of the entry.
            identity: The slide.
            frame: Width, height and resolution.
            regions: Its label regions.
            tissue: The tissue mask, or None to accept patches whatever their tissue.
            metadata_split: The split that its metadata name.
        """
        reviewed: dict[Label, MultiPolygon] = {
            "tumor": regions.accepted,
            "normal": regions.rejected,
        }
        return cls(
            entry_id,
            identity,
            *frame,
            has_tumor=not regions.tumor_region.is_empty,
            has_normal=not regions.normal_region.is_empty,
            reviewed_labels=frozenset(k for k, part in reviewed.items() if not part.is_empty),
            load=lambda: (regions, tissue),
            metadata_split=metadata_split,
        )

    def packed_in(
        self, values: PackedValues[tuple[LabelRegions, TissueMask | None]]
    ) -> SlideRegions:
        """The same with regions and mask in a file: a training has them of all its slides."""
        values[self.entry_id] = self.load()
        return replace(self, load=partial(values.__getitem__, self.entry_id))

    @property
    def regions(self) -> LabelRegions:
        """Where the slide is tumor and where normal."""
        return self.load()[0]

    @property
    def tissue(self) -> TissueMask | None:
        """The tissue mask, or None to accept patches whatever their tissue."""
        return self.load()[1]

    @property
    def name(self) -> str:
        """Name of the slide, for messages and the table."""
        return self.identity.name

    @property
    def candidate(self) -> SplitCandidate:
        """The slide as it is assigned to a split."""
        return SplitCandidate(
            self.entry_id,
            self.identity,
            self.metadata_split,
            has_tumor=self.has_tumor,
            has_normal=self.has_normal,
        )

    def region(self, label: Label) -> MultiPolygon:
        """Return the region of a label."""
        return self.regions.tumor_region if label == "tumor" else self.regions.normal_region

    def reviewed(self, label: Label) -> MultiPolygon:
        """Return the part of a label's region that comes from a review."""
        return self.regions.accepted if label == "tumor" else self.regions.rejected


def build_patch_table(
    slides: Sequence[SlideRegions],
    config: TrainConfig,
    left_out: Sequence[SplitCandidate] = (),
) -> PatchTable:
    """Assign splits, share the patches out over the slides, and draw them.

    Validation and test get equally many normal and tumor patches where there are both. The table
    does not depend on the order of the slides.

    Regions that a person rejected or accepted in a review are hard examples of normal tissue or
    tumor. By area they would give hardly a patch beside what was drawn, so training patches are
    drawn from them first, and more densely, up to ``config.hard_fraction``.

    Args:
        slides: All slides of the project that may be used.
        config: Settings of the training.
        left_out: Other images of the project. Slides that cannot be read: the splits of the
            others are as if they could be. And images without a label region whose metadata name
            a split: it holds for others of the same slide.

    Returns:
        Patches ordered by split, label, slide and then as drawn.

    Raises:
        QprdError: There are too few patches, or no slide is annotated.
    """
    candidates = [slide.candidate for slide in slides]
    splits, split_notes = splits_without(candidates, left_out, config.seed)
    if not splits:
        raise QprdError(
            "No slide has a tumor or a normal region.",
            fix="Draw tumor in QuPath on at least one slide, and save the project.",
        )
    used = sorted((s for s in slides if s.entry_id in splits), key=lambda s: s.entry_id)
    notes = [*split_notes, *apart_notes(candidates, splits)]
    areas: dict[Split, dict[str, Bounds]] = {}
    if len(used) == 1:
        only = used[0]
        parts = cut_slide(
            only.regions,
            only.width,
            only.height,
            size_px=config.patch_px * config.mpp / only.mpp,
        )
        areas = {split: {only.entry_id: bounds} for split, bounds in parts.items()}
        notes.append(
            f"{only.name} is the only annotated slide: one part of it trains and the other "
            "validates, so the validation is optimistic. Annotate a second slide."
        )
    else:
        for slide in used:
            bounds = (0.0, 0.0, float(slide.width), float(slide.height))
            areas.setdefault(splits[slide.entry_id], {})[slide.entry_id] = bounds

    sampler = _TableSampler(used, config, notes)
    patches = sampler.training(areas["train"])
    for split, wanted in (("val", config.val_patches), ("test", None)):
        if split in areas:
            patches += sampler.balanced(split, areas[split], wanted)
    return PatchTable(tuple(patches), tuple(notes))


class _TableSampler:
    """Draws the patches of one split after the other; ``notes`` get what there is less of."""

    def __init__(
        self, slides: Sequence[SlideRegions], config: TrainConfig, notes: list[str]
    ) -> None:
        self._slides = {s.entry_id: s for s in slides}
        self._config = config
        self._notes = notes

    def training(self, areas: Mapping[str, Bounds]) -> list[Patch]:
        """Draw the training patches, from reviewed regions first.

        Raises:
            QprdError: There are fewer patches than the number given, or none.
        """
        positions = {label: self._training(label, areas) for label in LABELS}
        for label in LABELS:
            limit = self._config.most_training(label)
            n_found = sum(map(len, positions[label].values()))
            if self._exact(label) or not n_found:
                self._check_enough("train", label, areas, positions[label], limit)
            elif n_found < limit:
                self._notes.append(
                    f"train has {n_found} {label} patches, all that fit into the annotations, "
                    f"instead of {limit}."
                )
        return self._patches("train", positions)

    def _exact(self, label: Label) -> bool:
        config = self._config
        return (config.tumor if label == "tumor" else config.normal) is not None

    def _training(
        self, label: Label, areas: Mapping[str, Bounds]
    ) -> dict[str, list[tuple[int, int]]]:
        limit, share = self._config.most_training(label), self._config.hard_fraction
        hard = self._positions("train", label, areas, round(share * limit), reviewed=True)
        n_hard = sum(map(len, hard.values()))
        rest = self._positions("train", label, areas, limit - n_hard)
        n_rest = sum(map(len, rest.values()))
        if not self._exact(label) and n_hard > share * (n_hard + n_rest):
            # There are fewer than the limit, of which reviewed regions keep their share.
            n_hard = round(share / (1 - share) * n_rest)
            hard = self._positions("train", label, areas, n_hard, reviewed=True)
        return {e: hard.get(e, []) + rest.get(e, []) for e in areas}

    def balanced(
        self, split: Split, areas: Mapping[str, Bounds], wanted: int | None
    ) -> list[Patch]:
        """Draw equally many patches of both labels; all there are if no number is wanted.

        Raises:
            QprdError: A number is wanted and there are fewer, or validation has none at all.
        """
        limit = HELD_OUT_PER_LABEL if wanted is None else wanted
        positions = {label: self._positions(split, label, areas, limit) for label in LABELS}
        found = {label: sum(map(len, positions[label].values())) for label in LABELS}
        missing = [label for label in LABELS if not found[label]]
        if len(missing) == len(LABELS):
            if split == "test":  # training does not use test patches, so it goes on without
                self._notes.append("There are no patches for test.")
                return []
            self._check_enough(split, "normal", areas, positions["normal"], limit)
        if missing:
            self._notes.append(
                f"There is no {missing[0]} patch for {split}; accuracy and threshold need both "
                "labels."
            )
            return self._patches(split, positions)
        if wanted is not None:
            for label in LABELS:
                self._check_enough(split, label, areas, positions[label], wanted)
        count = min(found.values())
        if count < limit:
            self._notes.append(f"{split} has {count} patches of each label instead of {limit}.")
        for label in LABELS:
            available = {entry_id: len(xy) for entry_id, xy in positions[label].items()}
            quotas = stratify(available, count)
            positions[label] = {e: xy[: quotas[e]] for e, xy in positions[label].items()}
        return self._patches(split, positions)

    def _size_px(self, entry_id: str) -> float:
        """Return the edge of a patch in level-0 pixels of a slide."""
        return self._config.patch_px * self._config.mpp / self._slides[entry_id].mpp

    def _positions(
        self,
        split: Split,
        label: Label,
        areas: Mapping[str, Bounds],
        wanted: int,
        *,
        reviewed: bool = False,
    ) -> dict[str, list[tuple[int, int]]]:
        """Draw patch positions in the region of a label, or in its reviewed part, by slide."""
        names = (split, label, "reviewed") if reviewed else (split, label)
        max_overlap = self._config.max_overlap
        if reviewed:
            max_overlap = max(max_overlap, REVIEWED_OVERLAP)

        def source(entry_id: str, bounds: Bounds) -> Iterator[tuple[int, int]]:
            slide, size_px = self._slides[entry_id], self._size_px(entry_id)
            region = slide.reviewed(label) if reviewed else slide.region(label)
            rng = patch_rng(self._config.seed, entry_id, *names)
            return iter_patches(
                RegionIndex(region, size_px),
                slide.tissue,
                size_px=size_px,
                bounds=bounds,
                rng=rng,
                min_coverage=self._config.min_coverage,
                max_overlap=max_overlap,
                min_tissue=self._config.min_tissue,
            )

        if wanted == 0:
            return {}
        sources = {
            e: partial(source, e, bounds)
            for e, bounds in areas.items()
            if not reviewed or label in self._slides[e].reviewed_labels
        }
        return sample_stratified(sources, wanted)

    def _patches(
        self, split: Split, positions: Mapping[Label, Mapping[str, Sequence[tuple[int, int]]]]
    ) -> list[Patch]:
        return [
            Patch(
                slide=entry_id,
                name=self._slides[entry_id].name,
                fingerprint=self._slides[entry_id].identity.fingerprint,
                x=x,
                y=y,
                size_px=self._size_px(entry_id),
                mpp=self._config.mpp,
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
        """Return for each position whether enough of the patch lies in a reviewed region."""
        slide, size_px = self._slides[entry_id], self._size_px(entry_id)
        if label not in slide.reviewed_labels or not positions:
            return [False] * len(positions)
        x, y = np.array(positions, np.float64).T
        covered = RegionIndex(slide.reviewed(label), size_px).coverage(x, y, size_px)
        return [bool(share >= self._config.min_coverage - 1e-9) for share in covered]

    def _check_enough(
        self,
        split: Split,
        label: Label,
        areas: Mapping[str, Bounds],
        positions: Mapping[str, Sequence[tuple[int, int]]],
        wanted: int,
    ) -> None:
        n_found = sum(map(len, positions.values()))
        if n_found >= wanted:
            return
        config = self._config
        n_small = sum(
            int((shapely.area(shapely.get_parts(self._slides[e].region(label))) < smallest).sum())
            for e in areas
            if (smallest := config.min_coverage * self._size_px(e) ** 2)
        )
        count = f"only {n_found} of {wanted}" if n_found else "no"
        problem = f"There are {count} {label} patches for {split}"
        if n_small:
            problem += f"; {n_small} of the {label} areas are too small for a patch"
        per_slide = [f"{self._slides[e].name}: {len(positions[e])}" for e in sorted(areas)]
        ask_less = (
            f"Ask for at most {n_found} (--{label} {n_found}). Or annotate" if n_found else ""
        )
        raise QprdError(
            problem + ".",
            where=name_list(per_slide, 20),
            fix=(
                f"{ask_less or 'Annotate'} more, use smaller patches (--patch-px, now "
                f"{config.patch_px} at {config.mpp:g} um/px), or relax --max-overlap "
                f"(now {config.max_overlap:g}), --min-coverage (now {config.min_coverage:g}) or "
                f"--min-tissue (now {config.min_tissue:g}). Tissue that qprd does not find can be "
                "outlined (--tissue-class)."
            ),
        )
