"""Files of annotations that were exported from QuPath: which of them is that of an entry.

The script ``export_annotations.groovy`` writes ``<project>/qprd/annotations/<entry id>.geojson``.
A user may give a folder of files instead that are named by entry id or image name, as QuPath
exports them: ``.geojson``, ``.json``, or either of them compressed, ``.geojson.gz``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qprd.errors import QprdError, read_errors
from qprd.files.layout import ProjectLayout
from qprd.names import composed, counted
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.geojson import annotations_of, objects_of, own_member_of, read_root
from qprd.qupath.image_record import require_image
from qprd.qupath.project import Annotation, Entry
from qprd.qupath.qpproj import ProjectFile

EXPORT_HINT = (
    "In QuPath: Automate > Script editor, open export_annotations.groovy ('qprd groovy DIR' puts it"
    " into DIR), Run > Run for project."
)

#: Suffixes of GeoJSON files.
_GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz")
#: Suffixes of annotations that other programs save, and what to do with them.
_FOREIGN = {
    ".xml": "An .xml file of ASAP is read by qprd import-asap; turn one of ImageScope into GeoJSON "
    "first.",
    ".annotations": "Turn HALO's .annotations into GeoJSON first.",
}


#: Names of files by the suffix or suffixes that they may have, and the name without it.
_Names = Mapping[tuple[tuple[str, ...], str | None], Sequence[str]]


@dataclass(frozen=True)
class AnnotationSource:
    """Where an entry's annotations come from.

    Attributes:
        in_qupath: How many annotations QuPath's data file holds, None if it is not known.
        is_outdated: QuPath saved the image after this file was exported, going by the files' times.
        foreign: Suffix of a file of another program that may hold them, None if there is none.
    """

    file: Path | None
    in_qupath: int | None
    is_outdated: bool = False
    foreign: str | None = None

    @property
    def problem(self) -> str | None:
        """Why annotations may be missing, without a full stop; None if all is well."""
        if self.is_outdated:
            return "exported before QuPath last saved this image"
        if self.file is None and self.foreign is not None:
            return f"its {self.foreign} file of another program is not read"
        if self.file is not None or self.in_qupath == 0:
            return None
        if self.in_qupath is None:
            return "no annotations exported"
        return f"{counted(self.in_qupath, 'annotation')} in QuPath, none exported"

    @property
    def note(self) -> str | None:
        """The problem, and what to do about it."""
        if self.file is None and self.foreign is not None:
            return f"{self.problem}. {_FOREIGN[self.foreign]}"
        if self.problem is None or (self.in_qupath is None and not self.is_outdated):
            return self.problem
        return f"{self.problem}: {EXPORT_HINT}"


class AnnotationFiles:
    """The files of exported annotations of a project, or those in a folder ``given`` by the user.

    Raises:
        QprdError: there is no such folder.
    """

    def __init__(self, project: ProjectFile, given: Path | None) -> None:
        if given is not None and not given.is_dir():
            raise QprdError(
                "There is no such folder of annotations.",
                where=str(given),
                fix="Give --annotations a folder of GeoJSON files that QuPath exported.",
            )
        self.given = given
        #: When the folder was last changed, and what was in it then.
        self._listing: tuple[int, _Names] = (-1, {})
        self._project = project
        self._folder = ProjectLayout(project.path).annotations

    def own_file(self, entry: Entry) -> Path:
        """The project's own file of an entry, which need not exist."""
        return self._folder / f"{entry.id}.geojson"

    def source(self, entry: Entry) -> AnnotationSource:
        """The file that has the annotations of an entry, and how many QuPath itself has.

        Raises:
            QprdError: several files could be meant, or one file could be that of several entries.
        """
        file, foreign = self._file(entry)
        folder = EntryFolder.of(self._project.path, entry.id)
        is_outdated = (
            file is not None
            and self.given is None
            and _modified_ns(file) < _modified_ns(folder.data)
        )
        return AnnotationSource(file, folder.recorded_annotations(), is_outdated, foreign)

    def read(self, entry: Entry) -> tuple[object, tuple[Annotation, ...]]:
        """The parsed file of an entry, None if there is none, and the annotations in it.

        Raises:
            QprdError: the file is malformed, ambiguous, or was exported from another image.
        """
        file, _ = self._file(entry)
        if file is None:
            return None, ()
        root, where = read_root(file)
        record = own_member_of(root)
        if self.given is not None:
            # A person named the file: by the image, or by an id that need not be its own.
            by_id = _stem(file.name, _GEOJSON) == entry.id
            compared = record.keys() - {"entry"} if by_id else {"width", "height"}
            record = {key: value for key, value in record.items() if key in compared}
        require_image(entry, record, where=where, fix=EXPORT_HINT)
        return root, tuple(annotations_of(objects_of(root, where)))

    def _file(self, entry: Entry) -> tuple[Path | None, str | None]:
        """The file of an entry, and the suffix of one of another program that is not read."""
        if self.given is not None:
            return self._by_name(entry, self.given)
        file = self.own_file(entry)
        return (file if file.is_file() else None), None

    def _by_name(self, entry: Entry, folder: Path) -> tuple[Path | None, str | None]:
        """The file of an entry in a folder of the user's, and the suffix of a foreign one.

        Names from the project are only compared with those that the folder lists: they may hold
        slashes, and must not become paths.
        """
        fix = "Get read access to it, or give another folder to --annotations."
        with read_errors("This folder", folder, fix=fix):
            changed_ns = folder.stat().st_mtime_ns
            if self._listing[0] != changed_ns:
                self._listing = changed_ns, _list(folder)
        names, stems = self._listing[1], _stems(entry)
        found = sorted({name for stem in stems for name in names.get((_GEOJSON, stem), ())})
        if len(found) > 1:
            raise QprdError(
                f"Several files could hold the annotations of {entry.name}: {', '.join(found)}.",
                where=str(folder),
                fix="Leave only one of them there.",
            )
        if not found:
            foreign = (one for one in _FOREIGN for stem in stems if names.get(((one,), stem)))
            return None, next(foreign, None)
        claims = self._claims(found[0])
        if len(claims) > 1:
            by_name, by_id = f"{entry.name}.geojson", f"{entry.id}.geojson"
            claimed_by = ", ".join(f"{claim.name} (id {claim.id})" for claim in claims[:5])
            raise QprdError(
                f"{found[0]} could hold the annotations of several images: {claimed_by}.",
                where=str(folder),
                fix=f"Name it by the whole image name: {by_name}."
                if len(self._claims(by_name)) == 1
                else f"Name it by id: {by_id}.",
            )
        return folder / found[0], None

    def _claims(self, file_name: str) -> Sequence[Entry]:
        """The entries whose annotations a file of this name could hold."""
        return self._by_stem.get(_stem(file_name, _GEOJSON), ())

    @cached_property
    def _by_stem(self) -> Mapping[str | None, Sequence[Entry]]:
        """The entries of the project by each name that their files may have."""
        entries: dict[str | None, list[Entry]] = defaultdict(list)
        for entry in self._project.entries:
            for stem in _stems(entry):
                entries[stem].append(entry)
        return entries


def _list(folder: Path) -> _Names:
    found: dict[tuple[tuple[str, ...], str | None], list[str]] = defaultdict(list)
    with os.scandir(folder) as listed:
        for name in (file.name for file in listed if file.is_file()):
            for suffixes in (_GEOJSON, *((one,) for one in _FOREIGN)):
                found[suffixes, _stem(name, suffixes)].append(name)
    return found


def _stem(file_name: str, suffixes: Sequence[str]) -> str | None:
    """A file name without its suffix, None if it has another one than these."""
    folded = file_name.casefold()
    found = [suffix for suffix in suffixes if folded.endswith(suffix)]
    return composed(file_name[: -len(max(found, key=len))]) if found else None


def _stems(entry: Entry) -> set[str]:
    """Names, without a suffix, of files that may hold the annotations of an image."""
    stem = entry.name.rpartition(".")[0] or entry.name
    return {composed(part) for part in (entry.id, entry.name, stem)}


def _modified_ns(path: Path) -> int:
    """When a file was last changed; 0 if that cannot be found out."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
