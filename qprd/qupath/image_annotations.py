"""The annotations of several images, as far as they can be read, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qprd.errors import QprdError
from qprd.files.packed import PackedValues
from qprd.qupath.entry_slides import name_list
from qprd.qupath.project import Annotation, Entry, Project


@dataclass(frozen=True)
class Unreadable:
    """An image whose annotations cannot be read.

    Attributes:
        classes: The classes of the annotations that QuPath last saved; None if that is not known.
    """

    error: QprdError
    classes: Sequence[str] | None


@dataclass(frozen=True)
class ImageAnnotations:
    """What is drawn on some images; one that cannot be read does not stop the others.

    Attributes:
        annotations: Of each image that could be read, by entry id.
        doubts: Why annotations may be missing (`Project.annotation_note`), and of which images.
    """

    annotations: Mapping[str, Sequence[Annotation]]
    unreadable: Mapping[str, Unreadable]
    doubts: Mapping[str, Sequence[Entry]]

    def notes(self, entries: Iterable[Entry]) -> list[str]:
        """Say why annotations of these images may be missing."""
        chosen = {entry.id for entry in entries}
        found = {
            note: [e for e in members if e.id in chosen] for note, members in self.doubts.items()
        }
        return [f"{name_list(e)}: {note}" for note, e in found.items() if e]


def read_image_annotations(project: Project, entries: Sequence[Entry]) -> ImageAnnotations:
    """Read the annotations of these images."""
    annotations = PackedValues[Sequence[Annotation]]()
    unreadable: dict[str, Unreadable] = {}
    doubts: dict[str, list[Entry]] = {}
    for entry in entries:
        try:
            note = project.annotation_note(entry)
            own = project.annotations(entry)
        except QprdError as error:
            unreadable[entry.id] = Unreadable(error, project.recorded_classes(entry))
        else:
            annotations[entry.id] = own
            if note is not None:
                doubts.setdefault(note, []).append(entry)
    return ImageAnnotations(annotations, unreadable, doubts)
