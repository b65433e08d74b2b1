"""A project's entries with their slides found: the same for both backends."""

from __future__ import annotations

from pathlib import Path

from qprd.qupath.locate import SlideLocator, UnsupportedUriError
from qprd.qupath.project import Entry, SlideSource
from qprd.qupath.qpproj import ProjectFile
from qprd.qupath.servers import RecordedServer


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
    """Find the slide of an entry; it is not opened.

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
    return SlideSource(
        uri=server.uri,
        path=path,
        tried=tried,
        reader=server.reader.removesuffix("ServerBuilder"),
        use_bounds=server.crops_to_bounds,
        file_size=server.file_size,
        width=server.width,
        height=server.height,
        mpp=server.mpp,
        rotation=server.rotation,
        crop=server.crop,
        unsupported=server.unsupported or problem,
    )
