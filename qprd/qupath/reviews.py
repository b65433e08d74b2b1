"""Judgments of predictions made outside QuPath, kept in ``<project>/qprd/reviews``.

Each image has a file ``<entry id>.jsonl`` to which lines are only ever appended, one a judgment. A
line is a JSON object with ``name``, ``time``, ``verdict``, ``note``, ``image`` (what image it is
of, see `qprd.qupath.image_record`) and ``feature``: the region as an annotation in QuPath's
GeoJSON, with the class that the verdict gives it. Of the lines about one region the last counts.
``groovy/import_predictions.groovy`` brings these annotations into QuPath.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

import shapely
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from qprd.errors import QprdError
from qprd.files.atomic import write_errors
from qprd.files.jsonfile import read_text
from qprd.files.layout import ProjectLayout
from qprd.predictions import PredictedAnnotation, is_own_class
from qprd.qupath.geojson import annotation_feature, annotations_of, objects_of, refuse_faults
from qprd.qupath.image_record import image_record, require_image
from qprd.qupath.project import Annotation, Entry, PathClass

#: What a person says of a region; ``none`` takes back what was said before.
Verdict = Literal["accepted", "rejected", "none"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_MAX_BYTES = 256 * 2**20
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Judgment:
    """What a person said of a predicted region.

    Attributes:
        time: ISO 8601, UTC.
        annotation: The region, with the class that the verdict gives it.
    """

    name: str
    time: str
    verdict: Verdict
    note: str
    annotation: Annotation

    @property
    def region(self) -> RegionKey:
        """The region that it is about."""
        return region_key(self.annotation)


#: Id and outline: another prediction of the same bundle may give an id to another region.
RegionKey = tuple[str, bytes]


def region_key(region: Annotation | PredictedAnnotation) -> RegionKey:
    """What a region is recognized by."""
    geometry = region.geometry if isinstance(region, Annotation) else region.polygon
    return region.id, shapely.to_wkb(shapely.normalize(geometry))


@dataclass(frozen=True)
class _Line:
    """A line as it stands in the file."""

    name: str
    time: str
    verdict: Verdict
    note: str
    image: Mapping[str, object]
    feature: Mapping[str, object]


_LINES = TypeAdapter(_Line)


def review_file(project: Path, entry_id: str) -> Path:
    """The file of the judgments of an entry of this project."""
    return ProjectLayout(project).reviews / f"{entry_id}.jsonl"


def add_judgment(
    project: Path,
    entry: Entry,
    region: PredictedAnnotation,
    verdict: Verdict,
    *,
    path_class: PathClass,
    name: str,
    note: str = "",
) -> None:
    """Append a judgment to the file of an entry; it is on the disk when this returns.

    The verdict gives the region the class ``path_class``; ``name`` is who judged.

    Raises:
        QprdError: it cannot be written, or another program holds the lock.
    """
    polygon, measurements = region.polygon, region.measurements
    line = {
        "name": name,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "verdict": verdict,
        "note": note,
        "image": {**image_record(entry), **_shown(entry)},
        "feature": annotation_feature(region.id, polygon, path_class, region.name, measurements),
    }
    path = review_file(project, entry.id)
    ProjectLayout(project).inside(path)
    text = json.dumps(line, allow_nan=False)
    with write_errors("The judgment", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.parent / "lock", timeout=_LOCK_TIMEOUT_S), path.open("ab") as file:
                # A process that was killed while it wrote may have left part of a line.
                start = b"\n" if file.tell() and not _ends_a_line(path) else b""
                file.write(start + text.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except Timeout as error:
            raise QprdError(
                "Another program is writing judgments; this one was not stored.",
                where=str(path),
                fix="Judge the region again.",
            ) from error


def read_judgments(project: Path, entry: Entry) -> list[Judgment]:
    """The last judgment of each region of an entry, in the order in which they were made.

    What was taken back is among them, with verdict ``none``.

    Raises:
        QprdError: the file is damaged, or of another image.
    """
    path = review_file(project, entry.id)
    if not path.is_file():
        return []
    ProjectLayout(project).inside(path)
    text = read_text(path, what="a file of judgments", limit_bytes=_MAX_BYTES)
    last: dict[RegionKey, Judgment] = {}
    images: dict[str, Mapping[str, object]] = {}
    for number, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        where = f"{path}, line {number}"
        try:
            line = _LINES.validate_json(row)
        except ValidationError as error:
            if not _is_whole_json(row):
                # The rest of a line whose writer was killed: nobody was told that it is stored.
                continue
            raise _damaged(where, str(error.errors()[0]["msg"])) from error
        found = objects_of(line.feature, where)
        refuse_faults(found, where)
        if len(regions := annotations_of(found)) != 1:
            raise _damaged(where, "it has no region")
        images[json.dumps(line.image, sort_keys=True)] = line.image
        judgment = Judgment(line.name, line.time, line.verdict, line.note, regions[0])
        last.pop(judgment.region, None)
        last[judgment.region] = judgment
    for image in images.values():
        _require_shown(entry, image, str(path))
    return list(last.values())


def with_judgments(
    drawn: Sequence[Annotation], judgments: Iterable[Judgment]
) -> tuple[Annotation, ...]:
    """Annotations of an image in QuPath, with the regions that were judged outside of it.

    A region that has a class of the user's in QuPath is left as it is there: the viewer takes no
    judgment of such a region, so that the one in QuPath is the later one.
    """
    in_qupath = {one.id for one in drawn if not is_own_class(one.class_name)}
    judged = {
        judgment.region: judgment.annotation
        for judgment in judgments
        if judgment.verdict != "none" and judgment.annotation.id not in in_qupath
    }
    ids = {region_id for region_id, _ in judged}
    rest = [one for one in drawn if one.id not in ids or region_key(one) not in judged]
    return (*rest, *judged.values())


def _shown(entry: Entry) -> dict[str, object]:
    """How the entry shows its file: its coordinates hold in this frame alone."""
    crop = entry.source.crop
    return {"rotation": entry.source.rotation, "crop": None if crop is None else list(crop)}


def _require_shown(entry: Entry, image: Mapping[str, object], where: str) -> None:
    fix = f"Rename the file to {Path(where).name}.old, then review the image again."
    require_image(entry, image, where=where, fix=fix)
    if any(image.get(key, value) != value for key, value in _shown(entry).items()):
        raise QprdError(
            "The image was turned or cropped since it was reviewed.", where=where, fix=fix
        )


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _is_whole_json(row: str) -> bool:
    try:
        json.loads(row)
    except (ValueError, RecursionError):
        return False
    return True


def _damaged(where: str, why: str) -> QprdError:
    return QprdError(
        f"This judgment is damaged: {why}.", where=where, fix="Correct or remove the line."
    )
