"""Change the metadata of entries in ``project.qpproj`` and nothing else in it.

QuPath itself would also record the project's present place, from which slides that moved with the
project are found, and its own version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic_core import to_json

from qprd.errors import QprdError
from qprd.files.jsonfile import read_json
from qprd.files.transaction import FileTransaction
from qprd.predictions import own_metadata, replace_own_metadata
from qprd.qupath.qpproj import MAX_PROJECT_BYTES, no_image, read_project_file


def recorded_metadata(project: Path, entry_id: str) -> dict[str, str]:
    """Those metadata of ours that a project file records for an entry."""
    return own_metadata(read_project_file(project).entry(entry_id).metadata)


def stage_own_metadata(
    transaction: FileTransaction, project: Path, metadata: Mapping[str, Mapping[str, str]]
) -> Path:
    """Stage a project file in which entries have these metadata in place of our earlier ones.

    Metadata go by entry id; other entries stay as they are.

    Returns:
        The staged file.

    Raises:
        QprdError: the project cannot be read or written, or has no such entry.
    """
    root = _read_root(project)
    images = _images(root)
    for entry_id, own in metadata.items():
        image = _image(images, entry_id, project)
        present = image.get("metadata")
        image["metadata"] = replace_own_metadata(present if isinstance(present, dict) else {}, own)
    text = _as_text(root)
    staged = transaction.stage_text(project, text)
    if _as_text(_read_root(staged)) != text:
        raise QprdError(
            "The metadata of images were not stored as meant. The project is as it was.",
            where=str(project),
            fix="Run it again; if it happens once more, please report it.",
        )
    return staged


def server_builder(project: Path, entry_id: str) -> object:
    """What the project records as an entry's server, as it stands there."""
    return _image(_images(_read_root(project)), entry_id, project).get("serverBuilder")


def _read_root(project: Path) -> object:
    return read_json(project, what="a QuPath project", limit_bytes=MAX_PROJECT_BYTES)


def _as_text(root: object) -> str:
    try:
        return to_json(root, indent=2).decode()
    except ValueError:
        # Nested deeply, or half a surrogate pair in a name: slower, and goes everywhere.
        return json.dumps(root, indent=2, ensure_ascii=False)


def _images(root: object) -> dict[str, dict[str, object]]:
    """The images of a project file by id, of two with one id the first."""
    images = root.get("images") if isinstance(root, dict) else None
    found: dict[str, dict[str, object]] = {}
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict):
            found.setdefault(str(image.get("entryID")), image)
    return found


def _image(
    images: Mapping[str, dict[str, object]], entry_id: str, project: Path
) -> dict[str, object]:
    if entry_id not in images:
        raise no_image(entry_id, project)
    return images[entry_id]
