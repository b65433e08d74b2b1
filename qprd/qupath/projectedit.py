"""Change the metadata of entries in ``project.qpproj`` and nothing else in it.

QuPath itself would also record the project's present place, from which slides that moved with the
project are found, and its own version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qprd.files.jsonfile import read_json
from qprd.predictions import OWN_PREFIX, own_metadata
from qprd.qupath.qpproj import MAX_PROJECT_BYTES, no_image, read_project_file


def recorded_metadata(project: Path, entry_id: str) -> dict[str, str]:
    """Those metadata of ours that a project file records for an entry."""
    return own_metadata(read_project_file(project).entry(entry_id).metadata)


def with_own_metadata(project: Path, metadata: Mapping[str, Mapping[str, str]]) -> str:
    """The text of a project file in which entries have these metadata in place of our earlier ones.

    Metadata go by entry id; other entries stay as they are.

    Raises:
        QprdError: the project cannot be read, or has no such entry.
    """
    root = _read_root(project)
    for entry_id, own in metadata.items():
        image = _image(root, entry_id, project)
        present = image.get("metadata")
        kept = {
            key: value
            for key, value in (present.items() if isinstance(present, dict) else ())
            if not key.startswith(OWN_PREFIX)
        }
        image["metadata"] = {**kept, **own}
    return json.dumps(root, indent=2, ensure_ascii=False)


def server_builder(project: Path, entry_id: str) -> object:
    """What the project records as an entry's server, as it stands there."""
    return _image(_read_root(project), entry_id, project).get("serverBuilder")


def _read_root(project: Path) -> object:
    return read_json(project, what="a QuPath project", limit_bytes=MAX_PROJECT_BYTES)


def _image(root: object, entry_id: str, project: Path) -> dict[str, object]:
    images = root.get("images") if isinstance(root, dict) else None
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict) and str(image.get("entryID")) == entry_id:
            return image
    raise no_image(entry_id, project)
