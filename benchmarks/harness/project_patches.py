"""From an annotated QuPath project to a patch folder whose splits never touch.

Training patches come from the training slides. Where the project has test slides, validation and
test patches come from the validation and the test slides. Where it has none, each validation
slide is cut in two by a straight line: validation patches lie on one side, test patches on the
other, at least a patch's edge apart.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from PIL import Image

from qprd.errors import QprdError
from qprd.jobs.reporting import write_json_object
from qprd.jobs.train.patches import PreparedPatches, prepare_patches
from qprd.progress import Progress, SilentProgress, TerminalProgress
from qprd.qupath.project import Project
from qprd.sampling.build import SlideRegions
from qprd.sampling.dataset import decode_all
from qprd.sampling.region_index import RegionIndex
from qprd.sampling.sampler import Bounds, iter_patches, patch_rng, sample_stratified
from qprd.sampling.splits import SPLITS, Split, assign_splits, cut_slide
from qprd.sampling.table import LABELS, Label, Patch, PatchTable
from qprd.settings import TrainConfig

#: Files of an exported folder beside ``images/``; the harness reads the first.
LABELS_CSV = "labels.csv"
PATCHES_CSV = "patches.csv"
PROVENANCE = "export.json"


@dataclass(frozen=True)
class ExportCounts:
    """Patches wanted of each split and label."""

    train_normal: int
    train_tumor: int
    val: int
    test: int

    def check(self) -> None:
        """Training needs normal patches, the others both labels.

        Raises:
            QprdError: a number is too small.
        """
        for field in fields(self):
            count, least = getattr(self, field.name), int(field.name != "train_tumor")
            if count < least:
                option = f"--export-{field.name.removeprefix('train_')}"
                raise QprdError(f"{count} is too few; {least} is the least.", where=option)

    def wanted(self, split: Split, label: Label) -> int:
        """Patches of a label in a split."""
        if split == "train":
            return self.train_normal if label == "normal" else self.train_tumor
        return self.val if split == "val" else self.test


@dataclass(frozen=True)
class Exported:
    """An exported folder: its patch table, and where on which slide each split lies.

    Attributes:
        table: The patches, in the order of ``labels.csv``.
        areas: Bounds x0, y0, x1, y1 in level-0 pixels by split and name of the slide.
        notes: What the user should know.
    """

    table: PatchTable
    areas: dict[Split, dict[str, Bounds]]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """What was exported, for people."""
        lines = [f"note: {note}" for note in self.notes]
        for split, areas in self.areas.items():
            own = self.table.subset(split)
            tumor = len(own.subset(split, "tumor"))
            where = "; ".join(
                f"{name} x {x0:.0f}-{x1:.0f}, y {y0:.0f}-{y1:.0f}"
                for name, (x0, y0, x1, y1) in areas.items()
            )
            lines.append(f"{split:>6}: {len(own) - tumor} normal + {tumor} tumor, {where}")
        return lines


def export_project(
    project: Project,
    folder: Path,
    config: TrainConfig,
    counts: ExportCounts,
    *,
    command: str,
) -> Exported:
    """Sample patches of a project and write them as a patch folder.

    Args:
        project: Read only.
        folder: A new or empty folder.
        config: Classes, resolution, patch size, overlap, seed.
        counts: Patches wanted; fewer are taken where there are fewer, and a note says so.
        command: What the provenance file records.

    Raises:
        QprdError: the folder is not empty; or a split would have no patch of a label.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QprdError(
            "The folder to export to is not empty.",
            where=str(folder),
            fix="Name a new folder.",
        )
    counts.check()
    progress = TerminalProgress() if sys.stderr.isatty() else SilentProgress()
    # One patch of each kind, because only the label regions are needed.
    regions_only = config.model_copy(update={"normal": 1, "tumor": 1, "val_patches": 1})
    prepared = prepare_patches(project, regions_only, None, progress)
    areas = _areas(prepared, config, counts)
    patches, notes = _sample(prepared, config, counts, areas)
    table = PatchTable(tuple(patches))
    _write_images(table, prepared, folder / "images", config.patch_px, progress)
    _write_labels(table, folder / LABELS_CSV)
    table.to_csv(folder / PATCHES_CSV)
    names = {slide.entry_id: slide.name for slide in prepared.slides}
    named = {split: {names[e]: b for e, b in own.items()} for split, own in areas.items()}
    exported = Exported(table, named, (*prepared.notes, *notes))
    write_json_object(
        folder / PROVENANCE,
        {
            "command": command,
            "seed": config.seed,
            "mpp": config.mpp,
            "patch_px": config.patch_px,
            "max_overlap": config.max_overlap,
            "patches": {f"{s}_{label}": n for (s, label), n in table.counts().items()},
            "areas_level0_px": named,
            "notes": exported.notes,
        },
    )
    return exported


def _areas(
    prepared: PreparedPatches, config: TrainConfig, counts: ExportCounts
) -> dict[Split, dict[str, Bounds]]:
    """Where each split may take patches, by entry id."""
    splits = assign_splits([slide.candidate for slide in prepared.slides], config.seed)
    used = [slide for slide in prepared.slides if slide.entry_id in splits]
    if "val" not in splits.values():
        raise QprdError(
            "The project has one annotated slide; training and test must come from different ones.",
            fix="Annotate a second slide.",
        )
    areas: dict[Split, dict[str, Bounds]] = {split: {} for split in SPLITS}
    has_test = "test" in splits.values()
    for slide in used:
        split, whole = splits[slide.entry_id], (0.0, 0.0, float(slide.width), float(slide.height))
        if split == "val" and not has_test:
            share = counts.val / (counts.val + counts.test)
            parts = _cut_with_gap(slide, config.patch_px * config.mpp / slide.mpp, share)
            areas["val"][slide.entry_id], areas["test"][slide.entry_id] = parts
        else:
            areas[split][slide.entry_id] = whole
    return areas


def _cut_with_gap(slide: SlideRegions, size_px: float, val_share: float) -> tuple[Bounds, Bounds]:
    """The validation and the test part of a slide, a patch's edge apart."""
    parts = cut_slide(
        slide.regions, slide.width, slide.height, size_px=size_px, val_fraction=val_share
    )
    val, test = list(parts["val"]), list(parts["train"])
    axis = 0 if val[0] != test[0] else 1
    first, second = (val, test) if val[axis] < test[axis] else (test, val)
    first[axis + 2] -= size_px / 2
    second[axis] += size_px / 2
    return (val[0], val[1], val[2], val[3]), (test[0], test[1], test[2], test[3])


def _sample(
    prepared: PreparedPatches,
    config: TrainConfig,
    counts: ExportCounts,
    areas: Mapping[Split, Mapping[str, Bounds]],
) -> tuple[list[Patch], list[str]]:
    slides = {slide.entry_id: slide for slide in prepared.slides}
    patches: list[Patch] = []
    notes: list[str] = []
    for split in SPLITS:
        drawn: dict[Label, list[Patch]] = {}
        for label in LABELS:
            wanted = counts.wanted(split, label)
            sources = {
                entry_id: partial(_positions, slides[entry_id], split, label, bounds, config)
                for entry_id, bounds in areas[split].items()
            }
            drawn[label] = [
                _patch(slides[entry_id], xy, split, label, config)
                for entry_id, own in sample_stratified(sources, wanted).items()
                for xy in own
            ]
            if wanted and not drawn[label]:
                raise QprdError(
                    f"No {label} patch can be had for {split}.",
                    fix="Annotate more, or take smaller patches (--patch-px).",
                )
            if len(drawn[label]) < wanted:
                notes.append(f"{split} has {len(drawn[label])} of {wanted} {label} patches")
        if split != "train":
            # 1:1, whatever was to be had
            least = min(map(len, drawn.values()))
            drawn = {label: own[:least] for label, own in drawn.items()}
        patches += [patch for label in LABELS for patch in drawn[label]]
    return patches, notes


def _positions(
    slide: SlideRegions, split: Split, label: Label, bounds: Bounds, config: TrainConfig
) -> Iterator[tuple[int, int]]:
    size_px = config.patch_px * config.mpp / slide.mpp
    return iter_patches(
        RegionIndex(slide.region(label), size_px),
        slide.tissue,
        size_px=size_px,
        bounds=bounds,
        rng=patch_rng(config.seed, slide.entry_id, split, label),
        min_coverage=config.min_coverage,
        max_overlap=config.max_overlap,
        min_tissue=config.min_tissue,
    )


def _patch(
    slide: SlideRegions, xy: tuple[int, int], split: Split, label: Label, config: TrainConfig
) -> Patch:
    return Patch(
        slide=slide.entry_id,
        name=slide.name,
        x=xy[0],
        y=xy[1],
        size_px=config.patch_px * config.mpp / slide.mpp,
        mpp=config.mpp,
        label=label,
        split=split,
    )


def patch_id(number: int, patch: Patch) -> str:
    """Name of a patch's image, without its ending."""
    return f"{patch.split}-{patch.label}-{number:05d}"


def _write_images(
    table: PatchTable, prepared: PreparedPatches, folder: Path, patch_px: int, progress: Progress
) -> None:
    with (
        tempfile.TemporaryDirectory() as cache,
        progress.task("reading patches", len(table)) as task,
    ):
        images = decode_all(
            table,
            prepared.open,
            patch_px=patch_px,
            folder=Path(cache),
            progress=lambda _done, _all: task.advance(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        for number, (patch, image) in enumerate(zip(table.patches, images, strict=True)):
            Image.fromarray(image.transpose(1, 2, 0)).save(
                folder / f"{patch_id(number, patch)}.png", compress_level=1
            )


def _write_labels(table: PatchTable, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "split"])
        writer.writerows(
            [patch_id(number, patch), int(patch.label == "tumor"), patch.split]
            for number, patch in enumerate(table.patches)
        )
