"""The annotations of several images, as far as they can be read, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import shapely
from typing_extensions import override

from qprd.errors import QprdError
from qprd.qupath.entry_slides import name_list
from qprd.qupath.project import Annotation, Entry, Project

#: Memory of the annotations that are kept; those of further images are read again when asked for.
#: An annotation takes about a kilobyte, and 16 bytes a vertex.
_KEPT_BYTES = 64 * 2**20
_ANNOTATION_BYTES, _VERTEX_BYTES = 1024, 16


@dataclass(frozen=True)
class Unreadable:
    """An image whose annotations cannot be read.

    Attributes:
        classes: The classes of the annotations that QuPath last saved; None if that is not known.
    """

    error: QprdError
    classes: Sequence[str] | None


@dataclass(frozen=True)
class Drawn:
    """What is drawn on some images; one that cannot be read does not stop the others.

    Attributes:
        annotations: Of each image that could be read, by entry id. Those of many images are read
            again each time, which raises QprdError if they cannot be read any more.
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


def read_drawn(project: Project, entries: Sequence[Entry]) -> Drawn:
    """Read the annotations of these images."""
    annotations = _Annotations(project, _KEPT_BYTES)
    unreadable: dict[str, Unreadable] = {}
    doubts: dict[str, list[Entry]] = {}
    for entry in entries:
        try:
            note = project.annotation_note(entry)
            annotations.add(entry)
        except QprdError as error:
            unreadable[entry.id] = Unreadable(error, project.recorded_classes(entry))
        else:
            if note is not None:
                doubts.setdefault(note, []).append(entry)
    return Drawn(annotations, unreadable, doubts)


@dataclass(eq=False)
class _Annotations(Mapping[str, Sequence[Annotation]]):
    """Annotations by entry id, of which only a part is kept in memory."""

    project: Project
    bytes_left: int
    entries: dict[str, Entry] = field(default_factory=dict)
    kept: dict[str, Sequence[Annotation]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Read the annotations of an image."""
        annotations = self.project.annotations(entry)
        self.entries[entry.id] = entry
        vertices = int(shapely.get_num_coordinates([a.geometry for a in annotations]).sum())
        size = _ANNOTATION_BYTES * len(annotations) + _VERTEX_BYTES * vertices
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.kept[entry.id] = annotations

    @override
    def __getitem__(self, entry_id: str) -> Sequence[Annotation]:
        if entry_id in self.kept:
            return self.kept[entry_id]
        return self.project.annotations(self.entries[entry_id])

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    @override
    def __len__(self) -> int:
        return len(self.entries)
