"""``qprd import-asap``: tumor drawn in ASAP becomes annotations of a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.jobs.changes import RELOAD, ProjectChange, change_of, changed_files
from qprd.names import counted
from qprd.predictions import class_parts
from qprd.qupath.asap import TumorOutline, read_asap
from qprd.qupath.entry_slides import name_list, open_slide, select_entries
from qprd.qupath.precision import area_on_grid
from qprd.qupath.project import (
    DEFAULT_COLOR,
    AnnotationImport,
    ImportReport,
    PathClass,
    Project,
)
from qprd.settings import TrainConfig
from qprd.slides.frame import Frame


@dataclass(frozen=True, kw_only=True)
class ImportSummary(ImportReport, ProjectChange):
    """What an import did."""

    image: str
    tumor_class: str

    def lines(self) -> list[str]:
        """The summary for people."""
        done = [
            f"{self.image}: {counted(self.added, 'annotation')} of class {self.tumor_class} added"
        ]
        if self.unchanged:
            done.append(f"{self.unchanged} were there already")
        if self.edited:
            done.append(f"{self.edited} were changed since an earlier import and stay as they are")
        if self.removed:
            done.append(f"{self.removed} of an earlier import removed")
        lines = [f"{'; '.join(done)} ({self.backend})."]
        if self.dry_run:
            lines.append(changed_files(self.files, self.project))
        lines += self._closing("not imported")
        if self.dry_run or not self.added + self.removed:
            return lines
        if self.in_qupath:
            return [*lines, RELOAD]
        lines.append(
            f"They are in {self.where}, which qprd reads. To bring them into QuPath, run "
            "groovy/import_annotations.groovy there, before the next export (qprd groovy DIR "
            "puts the scripts into DIR)."
        )
        if self.removed:
            lines.append("If QuPath has those that were removed, delete them there.")
        return lines


def import_asap(
    project: Project,
    file: str | Path,
    *,
    image: str,
    tumor_class: str | None = None,
    dry_run: bool = False,
) -> ImportSummary:
    """Turn tumor drawn in ASAP into annotations of a project.

    Args:
        project: The project.
        file: ASAP's ``.xml``, or a ``.json`` of Camelyon16 annotations.
        image: Name of the image that was annotated.
        tumor_class: The class that the annotations get; None for the one of `TrainConfig`.
        dry_run: Say what would change, and touch nothing.

    Raises:
        QprdError: the file has no tumor or cannot be read, there is no such image, or nothing can
            be written.
    """
    file = Path(file)
    entries = select_entries(project, [image])
    if len(entries) > 1:
        raise QprdError(
            f"The file is of one image, and the name {image!r} fits {len(entries)}: "
            f"{name_list(entries)}.",
            where="--image",
            fix=f"Give its whole name, or its id, such as --image id:{entries[0].id}.",
        )
    entry = entries[0]
    drawn = read_asap(file)
    if not drawn.tumor:
        raise QprdError(
            "The file has no tumor annotation with an area"
            + "".join(f"; {note}" for note in drawn.notes)
            + ".",
            where=str(file),
            fix="Give the file in which the tumor was drawn.",
        )
    if entry.source.rotation != 0 or entry.source.crop is not None:
        raise QprdError(
            f"QuPath shows this image {'cropped' if entry.source.crop else 'turned'}, and the "
            "annotations were drawn on the slide as it is.",
            where=entry.name,
            fix="Add the slide to the project as it is, and name that image.",
        )
    # The resolution does not matter to who reads no pixels.
    with open_slide(entry, assume_mpp=1.0) as slide:
        frame = slide.frame
    areas, notes = _in_frame(drawn.tumor, frame, where=f"{file}, {entry.name}")
    name = ": ".join(class_parts(tumor_class or TrainConfig().tumor_class[0]))
    colors = {path_class.name: path_class.color for path_class in project.classes()}
    imported = AnnotationImport(
        source=file.name,
        path_class=PathClass(name, colors.get(name) or DEFAULT_COLOR),
        areas=areas,
    )
    with project.writing("import-asap", dry_run=dry_run) as session:
        report = project.import_annotations(entry, imported)
    change = change_of(project, session, dry_run)
    change["notes"] = (*session.notes, *drawn.notes, *notes)
    return ImportSummary(**vars(report), **change, image=entry.name, tumor_class=name)


def _in_frame(
    tumor: Sequence[TumorOutline], frame: Frame, *, where: str
) -> tuple[tuple[tuple[str, BaseGeometry], ...], list[str]]:
    """Outlines moved from the file's level-0 pixels to QuPath's frame, and cut off at its edge."""
    image = shapely.box(0, 0, frame.width, frame.height)
    offset = (frame.file_x, frame.file_y)
    inside: list[tuple[str, BaseGeometry]] = []
    counts: Counter[str] = Counter()
    moved = [shapely.transform(outline.geometry, lambda xy: xy - offset) for outline in tumor]
    for outline, geometry in zip(tumor, moved, strict=True):
        if not image.intersects(geometry):
            counts["left out: outside the image"] += 1
            continue
        is_whole = image.covers(geometry)
        area = area_on_grid(geometry if is_whole else geometry.intersection(image))
        if area is None:
            counts["left out: smaller than 0.01 px"] += 1
            continue
        if not is_whole:
            counts["cut off at the edge of the image"] += 1
        inside.append((outline.name, area))
    if not inside:
        x0, y0, x1, y1 = shapely.total_bounds(moved)
        raise QprdError(
            f"None of the {len(tumor)} tumor annotations is on this image: they span x {x0:.0f} to "
            f"{x1:.0f} and y {y0:.0f} to {y1:.0f}, and it has {frame.width} x {frame.height} px.",
            where=where,
            fix="Check that the file belongs to this slide, at its full resolution.",
        )
    notes = [f"{counted(count, 'annotation')} {what}" for what, count in counts.items()]
    if offset != (0, 0):
        notes.append(f"moved by {-offset[0]}, {-offset[1]} px, as QuPath crops the slide")
    return tuple(inside), notes
