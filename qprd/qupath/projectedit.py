"""Change the metadata of one entry in ``project.qpproj`` and nothing else in it.

QuPath itself would also record the project's present place, from which slides that moved with the
project are found, and its own version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qprd.errors import QprdError
from qprd.qupath.jsonfile import read_json
from qprd.qupath.qpproj import MAX_PROJECT_BYTES

#: Entry metadata with keys that start with this are ours.
OWN_PREFIX = "qprd: "


def own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Those of an entry's metadata that are ours."""
    return {key: value for key, value in metadata.items() if key.startswith(OWN_PREFIX)}


def with_own_metadata(project: Path, entry_id: str, metadata: Mapping[str, str]) -> str:
    """The text of a project file in which an entry has these metadata in place of our earlier ones.

    Raises:
        QprdError: the project cannot be read, or has no such entry.
    """
    root, image = _read_image(project, entry_id)
    present = image.get("metadata")
    kept = {
        key: value
        for key, value in (present.items() if isinstance(present, dict) else ())
        if not key.startswith(OWN_PREFIX)
    }
    image["metadata"] = {**kept, **metadata}
    return json.dumps(root, indent=2, ensure_ascii=False)


def server_builder(project: Path, entry_id: str) -> object:
    """What the project records as an entry's server, as it stands there.

    Raises:
        QprdError: the project cannot be read, or has no such entry.
    """
    return _read_image(project, entry_id)[1].get("serverBuilder")


def _read_image(project: Path, entry_id: str) -> tuple[object, dict[str, object]]:
    root = read_json(project, what="a QuPath project", limit_bytes=MAX_PROJECT_BYTES)
    images = root.get("images") if isinstance(root, dict) else None
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict) and str(image.get("entryID")) == entry_id:
            return root, image
    raise QprdError(f"There is no image with id {entry_id!r}.", where=str(project))
