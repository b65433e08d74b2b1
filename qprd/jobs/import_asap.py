"""``qprd import-asap``: tumor drawn in ASAP becomes annotations of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.jobs.write_back import NOTHING_TOUCHED, changed_files, kept_in
from qprd.predictions import class_parts
from qprd.qupath.asap import AsapRegion, read_asap
from qprd.qupath.entry_slides import open_slide, select_entries
from qprd.qupath.pathclasses import DEFAULT_COLOR
from qprd.qupath.precision import area_on_grid
from qprd.qupath.project import AnnotationImport, Entry, PathClass, Project
from qprd.slides.frame import Frame

#: `open_slide` wants a resolution, and here none counts.
_ANY_MPP = 1.0


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        project: The project file.
        backend: How it was written.
        image: The image's name.
        tumor_class: The class of the annotations.
        added: Annotations that are new.
        unchanged: Annotations that an earlier import of the file had put there.
        edited: Likewise, but changed by a person since, and left as they are.
        removed: Annotations of an earlier import that the file does not have any more.
        where: The file that holds them.
        notes: What the user should know.
        backup: Where the files are as they were before; None if none of them changed.
        files: Which files changed, or would change.
        dry_run: Whether nothing was touched, and this is what would be done.
    """

    project: Path
    backend: str
    image: str
    tumor_class: str
    added: int
    unchanged: int
    edited: int
    removed: int
    where: Path
    notes: tuple[str, ...]
    backup: Path | None = None
    files: tuple[Path, ...] = ()
    dry_run: bool = False

    def lines(self) -> list[str]:
        """The summary for people."""
        others = [
            f"{count} {what}"
            for count, what in (
                (self.unchanged, "were there already"),
                (self.edited, "were changed since an earlier import and stay as they are"),
                (self.removed, "of an earlier import removed"),
            )
            if count
        ]
        done = f"{self.image}: {self.added} annotations of class {self.tumor_class} added"
        lines = [f"{'; '.join([done, *others])} ({self.backend})."]
        lines += [f"note: {note}" for note in self.notes]
        if self.dry_run:
            return [*lines, changed_files(self.files, self.project), NOTHING_TOUCHED]
        if not self.added + self.removed:
            return lines
        if self.backup is not None:
            lines.append(kept_in(self.backup, self.project))
        if self.backend == "paquo":
            lines.append(
                "If QuPath has this image open: File > Reload data, and do not save before, or "
                "QuPath undoes the import."
            )
        else:
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
    file: Path,
    *,
    image: str,
    tumor_class: str = "Tumor",
    dry_run: bool = False,
) -> ImportSummary:
    """Add the tumor of an ASAP file, or of a Camelyon16 JSON file, to an image of a project.

    Args:
        project: The project.
        file: What ASAP saved.
        image: Name of the image that was annotated.
        tumor_class: The class that the annotations get.
        dry_run: Say what would change, and touch nothing.

    Raises:
        QprdError: the file cannot be read or has no tumor, there is no such image or several, its
            frame is not that of the file, all tumor is outside of it, or nothing can be written.
    """
    entry = _the_entry(project, image)
    drawn = read_asap(file)
    if not drawn.tumor:
        raise QprdError(
            "The file has no tumor annotation with an area"
            + "".join(f"; {note}" for note in drawn.notes)
            + ".",
            where=str(file),
        )
    regions, remarks = _in_frame(drawn.tumor, _frame(entry), where=f"{file}, {entry.name}")
    name = ": ".join(class_parts(tumor_class))
    known = {path_class.name: path_class for path_class in project.classes()}
    color = known[name].color if name in known else None
    imported = AnnotationImport(
        source=file.name, path_class=PathClass(name, color or DEFAULT_COLOR), regions=regions
    )
    with project.writing("import-asap", dry_run=dry_run) as session:
        report = project.import_annotations(entry, imported)
    return ImportSummary(
        project=project.path,
        backend=project.backend,
        image=entry.name,
        tumor_class=name,
        added=report.added,
        unchanged=report.unchanged,
        edited=report.edited,
        removed=report.removed,
        where=report.where,
        notes=(*session.notes, *drawn.notes, *remarks),
        backup=session.backup,
        files=report.files,
        dry_run=dry_run,
    )


def _the_entry(project: Project, image: str) -> Entry:
    entries = select_entries(project, [image])
    if len(entries) > 1:
        raise QprdError(
            f"The project has {len(entries)} images of the name {image!r}.",
            where="--image",
            fix="Rename the one that is meant in QuPath.",
        )
    return entries[0]


def _frame(entry: Entry) -> Frame:
    """Where QuPath's frame of an image lies in the slide's file.

    Raises:
        QprdError: the slide is not there, or QuPath shows it turned or cropped.
    """
    if entry.source.rotation != 0 or entry.source.crop is not None:
        raise QprdError(
            f"QuPath shows this image {'cropped' if entry.source.crop else 'turned'}, and the "
            "annotations were drawn on the slide as it is.",
            where=entry.name,
            fix="Add the slide to the project as it is, and name that image.",
        )
    with open_slide(entry, assume_mpp=_ANY_MPP) as slide:
        return slide.frame


def _in_frame(
    tumor: Sequence[AsapRegion], frame: Frame, *, where: str
) -> tuple[tuple[tuple[str, BaseGeometry], ...], list[str]]:
    """Regions moved from the file's level-0 pixels to QuPath's frame, and cut off at its edge."""
    image = shapely.box(0, 0, frame.width, frame.height)
    offset = (frame.file_x, frame.file_y)
    inside: list[tuple[str, BaseGeometry]] = []
    clipped = outside = vanished = 0
    moved = [shapely.transform(region.geometry, lambda xy: xy - offset) for region in tumor]
    for region, geometry in zip(tumor, moved, strict=True):
        if not image.intersects(geometry):
            outside += 1
            continue
        is_whole = image.covers(geometry)
        area = area_on_grid(geometry if is_whole else geometry.intersection(image))
        if area is None:
            vanished += 1
        else:
            clipped += not is_whole
            inside.append((region.name, area))
    if not inside:
        x0, y0, x1, y1 = shapely.total_bounds(moved)
        raise QprdError(
            f"None of the {len(tumor)} tumor annotations is on this image: they span x {x0:.0f} to "
            f"{x1:.0f} and y {y0:.0f} to {y1:.0f}, and it has {frame.width} x {frame.height} px.",
            where=where,
            fix="Check that the file belongs to this slide, at its full resolution.",
        )
    notes = []
    if offset != (0, 0):
        notes.append(f"moved by {-offset[0]}, {-offset[1]} px, as QuPath crops the slide")
    if outside:
        notes.append(f"{outside} annotations left out: outside the image")
    if clipped:
        notes.append(f"{clipped} annotations cut off at the edge of the image")
    if vanished:
        notes.append(f"{vanished} annotations left out: smaller than 0.01 px")
    return tuple(inside), notes
