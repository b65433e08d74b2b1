"""The classes of a project: ``classifiers/classes.json``."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.jsonfile import read_json, well_formed
from qprd.names import composed
from qprd.qupath.geojson import parse_color
from qprd.qupath.project import PathClass

_MAX_BYTES = 16 * 2**20
_WHAT = "QuPath's classes"


def classes_path(project: Path) -> Path:
    """Where the project with this ``.qpproj`` keeps its classes."""
    return project.parent / "classifiers" / "classes.json"


def read_classes(project: Path) -> list[PathClass]:
    """The classes of a project, in its order; none if it keeps none.

    Raises:
        QprdError: the file is malformed.
    """
    found: list[PathClass] = []
    for item in _read_list(classes_path(project)):
        name = item.get("name") if isinstance(item, dict) else None
        if isinstance(item, dict) and isinstance(name, str) and name:
            found.append(PathClass(well_formed(name), parse_color(item.get("color"))))
    return found


def with_classes(
    project: Path, added: Sequence[PathClass], removed: Collection[str] = ()
) -> str | None:
    """The text of the project's classes with some removed and others added; None if no change.

    Also None for a project that lists no classes: QuPath then shows its default ones, which a list
    of ours alone would replace.
    """
    listed = _read_list(classes_path(project))
    kept = [item for item in listed if not (isinstance(item, dict) and item.get("name") in removed)]
    known = {composed(path_class.name) for path_class in read_classes(project)}
    missing = [path_class for path_class in added if composed(path_class.name) not in known]
    if not listed or not (missing or len(kept) < len(listed)):
        return None
    items: list[object] = []
    for path_class in missing:
        item: dict[str, object] = {"name": path_class.name}
        if path_class.color is not None:
            item["color"] = argb_from_color(path_class.color)
        items.append(item)
    return classes_text([*kept, *items])


def classes_text(items: list[object]) -> str:
    """The contents of a ``classes.json`` with these items."""
    return json.dumps({"pathClasses": items}, indent=2, ensure_ascii=False)


def argb_from_color(color: tuple[int, int, int]) -> int:
    """The signed 32-bit ARGB number that QuPath keeps an opaque color in."""
    red, green, blue = color
    return (red << 16 | green << 8 | blue) - 0x1000000


def _read_list(path: Path) -> list[object]:
    if not path.exists():
        return []
    root = read_json(path, what=_WHAT, limit_bytes=_MAX_BYTES)
    listed = root.get("pathClasses") if isinstance(root, dict) else None
    if not isinstance(listed, list):
        raise QprdError(
            f"This is not {_WHAT}: it has no list.",
            where=str(path),
            fix="Delete the file; QuPath writes it again.",
        )
    return listed
