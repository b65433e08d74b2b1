"""The record of its image in an exchange file, and its comparison with an entry.

Files are named by entry id, and ids are given anew when a project is. The scripts in ``groovy/``
write the same record, but for the fingerprint, and make the same comparison.
"""

from __future__ import annotations

from collections.abc import Mapping

from qprd.errors import QprdError
from qprd.names import composed
from qprd.qupath.entry_slides import SIZE_TOLERANCE_PX, identity_of
from qprd.qupath.locate import UnsupportedUriError, file_path
from qprd.qupath.project import Entry


def image_record(entry: Entry) -> dict[str, object]:
    """The id, image name, URI and size of an entry, and the fingerprint if its slide is there."""
    record = {
        "entry": entry.id,
        "image": entry.name,
        "uri": entry.source.uri,
        "width": entry.source.width,
        "height": entry.source.height,
        "fingerprint": identity_of(entry).fingerprint,
    }
    return {key: value for key, value in record.items() if value is not None}


def require_image(
    entry: Entry, record: Mapping[str, object], *, where: str | None, fix: str
) -> None:
    """Make sure that a file is of the image of an entry.

    Its record was made by `image_record` or a script, possibly by an earlier qprd that recorded
    less; what it lacks is not compared. An image that was renamed in QuPath, or whose file was
    moved, is still the same.

    Raises:
        QprdError: it is another image; the error says ``where`` the file is, and the ``fix``.
    """
    if _is_another(entry, record):
        id_, name = (str(record.get(key, "unknown"))[:200] for key in ("entry", "image"))
        raise QprdError(
            f"This file is of the image {name} (id {id_}); in this project, id {entry.id} is "
            f"{entry.name}, another image.",
            where=where,
            fix=fix,
        )


def _is_another(entry: Entry, record: Mapping[str, object]) -> bool:
    if record.get("entry", entry.id) != entry.id:
        return True
    if (known := record.get("fingerprint")) and (found := identity_of(entry).fingerprint):
        return known != found
    source = entry.source
    for size, own_size in (
        (record.get("width"), source.width),
        (record.get("height"), source.height),
    ):
        if isinstance(size, int) and own_size and abs(size - own_size) > SIZE_TOLERANCE_PX:
            return True
    image, uri = record.get("image"), record.get("uri")
    if not isinstance(image, str) and not isinstance(uri, str):
        return False
    same_name = isinstance(image, str) and composed(image) == composed(entry.name)
    return not (same_name or (isinstance(uri, str) and _same_file_name(uri, source.uri)))


def _same_file_name(one: str, other: str) -> bool:
    try:
        return composed(file_path(one).name) == composed(file_path(other).name)
    except UnsupportedUriError:
        return one == other
