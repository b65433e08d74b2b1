"""``<project>/data/<entry id>``: QuPath's files about one entry, and what its summary counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.jsonfile import read_json

_MAX_SUMMARY_BYTES = 16 * 2**20


@dataclass(frozen=True)
class EntryFolder:
    """Paths of QuPath's files about one entry."""

    path: Path

    @classmethod
    def of(cls, project: Path, entry_id: str) -> EntryFolder:
        """The folder of an entry of this ``.qpproj`` file."""
        return cls(project.parent / "data" / entry_id)

    @property
    def data(self) -> Path:
        """The objects, image type, workflow, ..."""
        return self.path / "data.qpdata"

    @property
    def backup(self) -> Path:
        """The earlier data, there only while QuPath saves or if that was interrupted."""
        return self.path / "data.qpdata.bkp"

    @property
    def summary(self) -> Path:
        """QuPath's counts of the objects that it saved, by kind and class."""
        return self.path / "summary.json"

    def read_summary(self) -> dict[str, object]:
        """The summary, empty if there is none that can be read."""
        try:
            root = read_json(self.summary, what="a summary", limit_bytes=_MAX_SUMMARY_BYTES)
        except QprdError:
            # QuPath does not need it either.
            return {}
        return root if isinstance(root, dict) else {}

    def recorded_objects(self) -> int | None:
        """Number of objects that QuPath last saved, the root included; None if it is not known."""
        return _count(self._hierarchy().get("nObjects"))

    def recorded_annotations(self) -> int | None:
        """Number of annotations that QuPath last saved; None if it is not known."""
        counts = self._hierarchy().get("objectTypeCounts")
        return _count(counts.get("Annotations", 0)) if isinstance(counts, dict) else None

    def recorded_classes(self) -> list[str]:
        """Names of the classes of the annotations that QuPath last saved."""
        counts = self._hierarchy().get("annotationClassificationCounts")
        return (
            [name for name in counts if name != "Unclassified"] if isinstance(counts, dict) else []
        )

    def bears(self, class_name: str) -> bool:
        """Whether QuPath last saved an object of this class, or it is not known what it saved."""
        hierarchy = self._hierarchy()
        if not hierarchy:
            return self.data.exists()
        counts = (
            hierarchy.get(f"{kind}ClassificationCounts") for kind in ("annotation", "detection")
        )
        return any(isinstance(count, dict) and class_name in count for count in counts)

    def _hierarchy(self) -> Mapping[str, object]:
        hierarchy = self.read_summary().get("hierarchy")
        return hierarchy if isinstance(hierarchy, dict) else {}


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(str(value)) if is_count else None
