"""Find the slide that a project's URI means, on this computer and now.

Projects move between computers: `G:` becomes `/mnt/slides`, and the folder beside the project comes
along while the recorded URI does not change. Nothing here changes the project.
"""

from __future__ import annotations

import contextlib
import ntpath
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import SplitResult, unquote, urlsplit

from qprd.errors import QprdError
from qprd.names import composed
from qprd.qupath.project import SlideSource
from qprd.slides.opening import ZARR, ZARR_FIX, is_zarr

#: A folder given with ``--slides`` is searched this deep, and for this many files.
MAX_DEPTH = 16
MAX_FILES = 500_000

#: Parts of the addresses under which OMERO shows images in a browser.
_OMERO_PATHS = ("/webclient/", "/webgateway/", "/iviewer/")

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class UnsupportedUriError(ValueError):
    """A URI that does not name a file; the message says why."""


def file_path(uri: str) -> PurePath:
    """The path that a ``file:`` URI names, in the style of the system that wrote it.

    Understood are ``file:///data/a.svs``, Java's ``file:/data/a.svs``, drives (``file:///C:/a.svs``),
    shares (``file://server/share/a.svs``, ``file:////server/share/a.svs``), percent-encoding, and
    plain absolute paths.

    Raises:
        UnsupportedUriError: another scheme (http, omero), a relative path, or an undecodable one.
    """
    if _DRIVE.match(uri) or uri.startswith("\\\\"):
        return PureWindowsPath(_without_nul(uri))
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UnsupportedUriError(f"its address {uri!r} is malformed") from error
    if parts.scheme.lower() not in ("file", ""):
        raise UnsupportedUriError(_elsewhere(parts))
    if parts.query or parts.fragment:
        raise UnsupportedUriError("its address selects a part of a file")
    try:
        path = _without_nul(unquote(parts.path, errors="strict"))
        host = _without_nul(unquote(parts.netloc, errors="strict"))
    except UnicodeDecodeError as error:
        raise UnsupportedUriError(f"its address {uri!r} is not UTF-8") from error
    if host and host.lower() != "localhost":
        return PureWindowsPath(f"//{host}{path}")
    if _DRIVE.match(path.removeprefix("/")):
        return PureWindowsPath(path.removeprefix("/"))
    if path.startswith("//"):
        return PureWindowsPath("//" + path.lstrip("/"))
    if not path.startswith("/"):
        raise UnsupportedUriError(f"its address {uri!r} is no absolute path")
    return PurePosixPath(path)


def _elsewhere(address: SplitResult) -> str:
    """Where an address leads that is no file's, and how its slide becomes one."""
    scheme = address.scheme.lower()
    if scheme == "omero" or any(part in address.path for part in _OMERO_PATHS):
        place, how = "on an OMERO server", "download it there (omero download Image:ID)"
    elif scheme in ("http", "https"):
        place, how = f"on a web server ({scheme}://{address.netloc})", "download it"
    elif scheme in ("s3", "gs", "gcs", "az", "abfs"):
        place, how = f"in cloud storage ({scheme}://{address.netloc})", "copy it to a disk"
    else:
        return f"its address begins with {scheme}://, and qprd reads files on this computer only"
    return (
        f"it is {place}, and qprd reads files on this computer only; {how}, or export it from "
        "QuPath as an OME-TIFF, and add that file to the project"
    )


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise UnsupportedUriError("its address holds a NUL character")
    return text


def relative_to_project(slide: PurePath, project: PurePath) -> PurePath | None:
    """The slide's path from the project's folder, as both are recorded.

    Returns:
        A relative path, perhaps with leading ``..``; None if the two share no drive or system.
    """
    if isinstance(slide, PureWindowsPath) and isinstance(project, PureWindowsPath):
        try:
            return PureWindowsPath(ntpath.relpath(str(slide), str(project.parent)))
        except ValueError:
            return None
    if isinstance(slide, PurePosixPath) and isinstance(project, PurePosixPath):
        return PurePosixPath(posixpath.relpath(str(slide), str(project.parent)))
    return None


class SlideLocator:
    """Looks for slides: at the recorded place, relative to the project, then in given folders.

    The project lies where its file is now, and lay at ``recorded_uri`` by what it says itself. The
    folders of ``slides`` are searched by file name, in all their subfolders.

    Raises:
        QprdError: one of ``slides`` is no folder.
    """

    def __init__(
        self, project: Path, recorded_uri: str | None = None, slides: Sequence[Path] = ()
    ) -> None:
        self._project = project.absolute()
        self._recorded: PurePath | None = None
        if recorded_uri:
            with contextlib.suppress(UnsupportedUriError):
                self._recorded = file_path(recorded_uri)
        for folder in slides:
            if not folder.is_dir():
                raise QprdError(
                    "There is no such folder of slides.",
                    where=str(folder),
                    fix="Give --slides a folder that holds the slides, at any depth.",
                )
        self._folders = tuple(folder.absolute() for folder in slides)
        self._index: dict[str, list[Path]] | None = None

    def locate(self, source: SlideSource) -> SlideSource:
        """A recorded source with its slide, which is not opened.

        If there is no telling which file is meant, ``unsupported`` says why.

        Raises:
            QprdError: a folder of slides holds too many files.
        """
        try:
            recorded = file_path(source.uri)
        except UnsupportedUriError as error:
            return replace(source, unsupported=source.unsupported or str(error))
        if is_zarr(recorded):
            return replace(
                source, unsupported=source.unsupported or f"it is {ZARR}. {ZARR_FIX.rstrip('.')}"
            )
        for candidate in self._places(recorded):
            if (found := _file_like(candidate)) is not None:
                return replace(source, path=found)
        same = self._by_name(recorded)
        if len(same) == 1:
            return replace(source, path=same[0])
        problem = None
        if same:
            names = ", ".join(str(path) for path in same[:5])
            problem = (
                f"{len(same)} files could be meant by {recorded.name}: {names}; give --slides a "
                "folder that holds one of them only"
            )
        return replace(source, unsupported=source.unsupported or problem)

    def _places(self, recorded: PurePath) -> list[Path]:
        places: list[Path] = []
        if isinstance(Path(), type(recorded)):
            places.append(Path(recorded))
        if self._recorded is not None:
            relative = relative_to_project(recorded, self._recorded)
            if relative is not None:
                # Through a symbolic link "../slides" differs from the link's own neighbor.
                folders = (self._project.parent, self._project.resolve().parent)
                places += [
                    Path(os.path.normpath(folder.joinpath(*relative.parts))) for folder in folders
                ]
        return places

    def _by_name(self, recorded: PurePath) -> list[Path]:
        """Files of that name with the longest equal tail of folders; several if they tie."""
        if self._index is None:
            self._index = _index_by_name(self._folders)
        same = self._index.get(_folded(recorded.name), [])
        same = [path for path in same if path.name == recorded.name] or same
        # Folders given twice, or one in the other, show the same file twice.
        same = list({path.resolve(): path for path in reversed(same) if _is_file(path)}.values())
        lengths = [_common_tail(path, recorded) for path in same]
        return [path for path, length in zip(same, lengths, strict=True) if length == max(lengths)]


def _file_like(path: Path) -> Path | None:
    """The file of this name, or of its name in another Unicode form; None if there is none."""
    if _is_file(path) or path.name.isascii():
        return path if _is_file(path) else None
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return None
    alike = (file for file in beside if composed(file.name) == composed(path.name))
    return next(filter(_is_file, alike), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _folded(name: str) -> str:
    return composed(name).casefold()


def _common_tail(path: PurePath, recorded: PurePath) -> int:
    count = 0
    for ours, theirs in zip(reversed(path.parts), reversed(recorded.parts), strict=False):
        if _folded(ours) != _folded(theirs):
            break
        count += 1
    return count


def _index_by_name(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Every file under the folders by its `_folded` name; links to folders are not followed."""
    index: dict[str, list[Path]] = defaultdict(list)
    files = 0
    for top in folders:
        for folder, children, names in os.walk(top):
            children.sort()
            if len(Path(folder).relative_to(top).parts) >= MAX_DEPTH:
                children.clear()
            files += len(names)
            if files > MAX_FILES:
                raise QprdError(
                    f"The folders of slides hold more than {MAX_FILES:,} files.",
                    where=str(top),
                    fix="Give --slides a folder nearer to the slides.",
                )
            for name in sorted(names):
                index[_folded(name)].append(Path(folder, name))
    return index
