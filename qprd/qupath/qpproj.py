"""Read ``project.qpproj``, QuPath's project file, without QuPath.

The field names are those of QuPath's ``DefaultProject`` (0.2 to 0.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from qprd.errors import QprdError
from qprd.files.jsonfile import read_json, well_formed
from qprd.predictions import replace_own_metadata
from qprd.qupath.project import Entry
from qprd.qupath.servers import parse_server

MAX_PROJECT_BYTES = 256 * 2**20
MAX_SERVER_BYTES = 16 * 2**20
_WHAT = "a QuPath project"


@dataclass(frozen=True)
class ProjectFile:
    """A parsed project file.

    Attributes:
        version: The QuPath that wrote it; ``"unknown"`` if it does not say.
        uri: Where the file lay when it was written, None if it does not say.
        entries: In project order, ids unique and made of digits only; slides not looked for.
    """

    path: Path
    version: str
    uri: str | None
    entries: tuple[Entry, ...]

    def entry(self, entry_id: str) -> Entry:
        """The entry with an id."""
        if entry_id not in self._by_id:
            raise no_image(entry_id, self.path)
        return self._by_id[entry_id]

    def with_own_metadata(self, entry_id: str, own: Mapping[str, str]) -> ProjectFile:
        """The same project with these metadata of an entry in place of our earlier ones."""
        before = self.entry(entry_id)
        after = replace(before, metadata=replace_own_metadata(before.metadata, own))
        entries = tuple(after if entry is before else entry for entry in self.entries)
        return replace(self, entries=entries)

    @cached_property
    def _by_id(self) -> Mapping[str, Entry]:
        return {entry.id: entry for entry in self.entries}


def read_project_file(path: Path) -> ProjectFile:
    """Parse a ``.qpproj`` and, where that lacks a slide's size, its ``data/<id>/server.json``.

    An entry that cannot be used is returned with its source's ``unsupported`` set.

    Raises:
        QprdError: the file is missing, too large, no JSON, or no project of QuPath 0.2 or later.
    """
    path = path.absolute()
    root = read_json(path, what=_WHAT, limit_bytes=MAX_PROJECT_BYTES)
    if not isinstance(root, dict) or not isinstance(root.get("images"), list):
        raise _no_project("it has no list of images", str(path))
    if "version" not in root and "lastID" not in root:
        raise QprdError(
            "This project is not from QuPath 0.2 or later.",
            where=str(path),
            fix="Open and save it in a current QuPath.",
        )
    entries: list[Entry] = []
    ids: set[str] = set()
    for number, image in enumerate(root["images"], start=1):
        entry = _parse_entry(image, where=f"{path}, image {number}")
        if entry.id in ids:
            raise QprdError(
                f"Two images of this project have the id {entry.id}.",
                where=str(path),
                fix="Remove one of the two in QuPath, and add it again.",
            )
        ids.add(entry.id)
        entries.append(_with_saved_metadata(entry, path.parent))
    version, uri = root.get("version"), root.get("uri")
    return ProjectFile(
        path=path,
        version=version if isinstance(version, str) else "unknown",
        uri=uri if isinstance(uri, str) else None,
        entries=tuple(entries),
    )


def no_image(entry_id: str, project: Path) -> QprdError:
    """The error for an entry that a project does not have."""
    return QprdError(
        f"There is no image with id {entry_id!r}.",
        where=str(project),
        fix="Open the project again, and name an image of it.",
    )


def _no_project(why: str, where: str) -> QprdError:
    return QprdError(
        f"This is not a QuPath project: {why}.",
        where=where,
        fix="Give the project.qpproj that QuPath wrote.",
    )


def _parse_entry(image: object, *, where: str) -> Entry:
    if not isinstance(image, dict):
        raise _no_project("an image is no object", where)
    entry_id = image.get("entryID")
    # A Java long; the id names files, so nothing else may pass.
    if not isinstance(entry_id, int) or isinstance(entry_id, bool) or not 0 <= entry_id < 2**63:
        raise _no_project("an image has no id", where)
    name = image.get("imageName")
    metadata = image.get("metadata")
    return Entry(
        id=str(entry_id),
        name=well_formed(name) if isinstance(name, str) and name else f"Image {entry_id}",
        source=parse_server(image.get("serverBuilder")),
        metadata={
            well_formed(key): well_formed(value)
            for key, value in metadata.items()
            if isinstance(value, str)
        }
        if isinstance(metadata, dict)
        else {},
    )


def _with_saved_metadata(entry: Entry, project: Path) -> Entry:
    """Fill in what the project file lacks from the entry's ``server.json``, if that is the same."""
    source = entry.source
    if source.unsupported is not None or source.width is not None:
        return entry
    path = project / "data" / entry.id / "server.json"
    try:
        saved = parse_server(read_json(path, what="a server file", limit_bytes=MAX_SERVER_BYTES))
    except QprdError:
        # QuPath does not need that file either.
        return entry
    if (saved.rotation, saved.crop, saved.reader) != (source.rotation, source.crop, source.reader):
        return entry
    filled = replace(
        source,
        file_size=saved.file_size,
        width=saved.width,
        height=saved.height,
        mpp=source.mpp if source.mpp is not None else saved.mpp,
        unsupported=saved.unsupported,
    )
    return replace(entry, source=filled)
