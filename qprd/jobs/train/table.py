"""The patch table of a training: sampled, or given and checked against the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qprd.errors import QprdError, read_errors
from qprd.qupath.entry_slides import recorded_name
from qprd.sampling.build import SlideRegions, build_patch_table
from qprd.sampling.splits import SplitCandidate, same_slides
from qprd.sampling.table import Patch, PatchTable
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import SlideIdentity

#: Notes shown with an error of sampling.
_NOTES_SHOWN = 10


def patch_table(
    slides: Sequence[SlideRegions],
    left_out: Sequence[SplitCandidate],
    patches: Path | None,
    config: TrainConfig,
    notes: Sequence[str],
) -> PatchTable:
    """Sample patches, or take those of a table on disk.

    Raises:
        QprdError: There is nothing to learn from, or the table does not fit the slides.
    """
    if not slides:
        raise QprdError(
            "None of the annotated slides can be used.\n  " + "\n  ".join(notes[:_NOTES_SHOWN]),
            fix="Name the folder of the slides with --slides DIR; run qprd doctor for the reasons.",
        )
    if patches is None:
        return _sampled_table(slides, left_out, config, notes)
    return _given_table(patches, slides, left_out, config)


def _sampled_table(
    slides: Sequence[SlideRegions],
    left_out: Sequence[SplitCandidate],
    config: TrainConfig,
    notes: Sequence[str],
) -> PatchTable:
    """Sample patches; an error lists the notes, which may hold its cause."""
    try:
        return build_patch_table(slides, config, left_out)
    except QprdError as error:
        shown = "".join(f"\n  note: {note}" for note in notes[:_NOTES_SHOWN])
        raise QprdError(
            f"{error.problem}{shown}",
            where=error.where,
            fix=error.fix,
            exit_code=error.exit_code,
        ) from error


def _given_table(
    file: Path,
    slides: Sequence[SlideRegions],
    left_out: Sequence[SplitCandidate],
    config: TrainConfig,
) -> PatchTable:
    """A table from disk, checked against the project's slides and the model's resolution.

    Patches of slides that cannot be read are left out of it.
    """
    with read_errors("The patch table", file, fix="Check the path given to --patches."):
        table = PatchTable.from_csv(file)
    known = {slide.entry_id: slide for slide in slides}
    changed = {
        p.slide: f"{p.name}: its file is not what it was when the patch table was made; its "
        "patches are left out"
        for p in table.patches
        if p.slide in known
        and recorded_name(p.name) == known[p.slide].name
        and not _is_from(p, known[p.slide].identity)
    }
    lost = {(image.entry_id, image.slide.name) for image in left_out if image.usable}
    lost |= {(entry_id, known[entry_id].name) for entry_id in changed}
    kept = (p for p in table.patches if (p.slide, recorded_name(p.name)) not in lost)
    table = PatchTable(tuple(kept), tuple(changed.values()))
    for patch in table.patches:
        slide = known.get(patch.slide)
        if slide is None or not _is_from(patch, slide.identity):
            raise QprdError(
                f"The patch table is of the slide {patch.name} (id {patch.slide}); "
                + ("no usable slide" if slide is None else f"{slide.name}, another slide,")
                + " has this id in this project.",
                where=str(file),
                fix="Give a table that was made for this project, or sample patches anew.",
            )
        meant = slide.metadata_split
        if meant is not None and meant != patch.split:
            raise QprdError(
                f"The patch table uses {slide.name} for {patch.split}; its metadata in the project "
                f"say {meant}.",
                where=str(file),
                fix="Correct the one or the other.",
            )
        if abs(patch.mpp - config.mpp) > 1e-6 * config.mpp:
            raise QprdError(
                f"The patch table is for {patch.mpp:g} um/px; the model works at {config.mpp:g}.",
                where=str(file),
                fix=f"Give --mpp {patch.mpp:g}.",
            )
        size_px = config.patch_px * patch.mpp / slide.mpp
        if abs(patch.size_px - size_px) > 1e-3 * size_px:
            raise QprdError(
                f"A patch of {config.patch_px} px covers {size_px:g} px of {slide.name}; the table "
                f"says {patch.size_px:g}.",
                where=str(file),
                fix="Give the --patch-px that the table was made with.",
            )
        # The table has whole pixels, the size of a patch need not be one.
        right, bottom = patch.x + patch.size_px, patch.y + patch.size_px
        if right > slide.width + 1 or bottom > slide.height + 1:
            raise QprdError(
                f"The patch at {patch.x}, {patch.y} lies outside {slide.name}, which has "
                f"{slide.width} x {slide.height} px.",
                where=str(file),
                fix="Correct or delete this row of the table.",
            )
    if len(split_of := {patch.slide: patch.split for patch in table.patches}) > 1:
        given = (
            replace(known[slide].candidate, metadata_split=split_of[slide]) for slide in split_of
        )
        same_slides([*given, *left_out])
    if not any(patch.split == "train" and patch.label == "normal" for patch in table.patches):
        raise QprdError(
            "The patch table has no normal training patches."
            + "".join(f"\n  note: {note}" for note in table.notes),
            where=str(file),
            fix="Add patches of label normal and split train.",
        )
    return table


def _is_from(patch: Patch, slide: SlideIdentity) -> bool:
    """Whether a patch was taken from a slide."""
    return SlideIdentity(recorded_name(patch.name), patch.fingerprint).is_same_file_as(slide)
