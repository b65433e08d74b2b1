"""A project's entries with their slides found: the same for both backends."""

from __future__ import annotations

from pathlib import Path

import openslide

from qprd.qupath.locate import SlideLocator, UnsupportedUriError
from qprd.qupath.project import Entry, SlideSource
from qprd.qupath.qpproj import ProjectFile, RecordedServer

_BOUNDS = tuple(f"openslide.bounds-{side}" for side in ("x", "y", "width", "height"))


def find_entries(project: ProjectFile, locator: SlideLocator) -> tuple[Entry, ...]:
    """Entries of a project with the slides that this computer has; the project stays as it is.

    Raises:
        QprdError: a folder of slides holds too many files.
    """
    return tuple(
        Entry(
            id=recorded.id,
            name=recorded.name,
            source=slide_source(recorded.server, locator),
            metadata=recorded.metadata,
        )
        for recorded in project.entries
    )


def slide_source(server: RecordedServer, locator: SlideLocator) -> SlideSource:
    """Find a slide and make sure that OpenSlide and QuPath give it the same frame.

    Readers other than QuPath's OpenSlide (Bio-Formats, ImageJ) show a whole file, without the crop
    to ``openslide.bounds-*``. Their entries are used only where OpenSlide shows the same pixels in
    the same place: no such bounds, and the size that the project records.

    Raises:
        QprdError: a folder of slides holds too many files.
    """
    path: Path | None = None
    tried: tuple[Path, ...] = ()
    problem: str | None = None
    try:
        located = locator.locate(server.uri)
    except UnsupportedUriError as error:
        problem = str(error)
    else:
        path, tried, problem = located.path, located.tried, located.problem
    unsupported = server.unsupported or problem
    if unsupported is None and path is not None and not server.crops_to_bounds:
        unsupported = _other_frame(path, server)
    return SlideSource(
        uri=server.uri,
        path=path,
        tried=tried,
        width=server.width,
        height=server.height,
        mpp=server.mpp,
        rotation=server.rotation,
        crop=server.crop,
        unsupported=unsupported,
    )


def _other_frame(path: Path, server: RecordedServer) -> str | None:
    """Why OpenSlide might show a file otherwise than the reader that QuPath used, or None."""
    reader = server.reader.removesuffix("ServerBuilder") or "another reader"
    try:
        with openslide.OpenSlide(path) as slide:
            size = slide.dimensions
            has_bounds = any(name in slide.properties for name in _BOUNDS)
    except (openslide.OpenSlideError, OSError):
        return f"QuPath reads it with {reader}, and OpenSlide cannot open it"
    if has_bounds:
        return f"QuPath reads it with {reader}, which does not crop to its bounds as OpenSlide does"
    if server.file_size is None and server.reader != "OpenslideServerBuilder":
        return f"QuPath reads it with {reader}, and the project does not record its size"
    if server.file_size is not None and size != server.file_size:
        recorded = "{} x {}".format(*server.file_size)
        return (
            f"QuPath reads it with {reader} as {recorded} px, OpenSlide as {size[0]} x {size[1]} px"
        )
    return None
