"""A QuPath inside this process: found without Java, started once, asked in bulk.

paquo finds QuPath and starts its Java virtual machine (JVM), once per process. What loops over many
objects is in ``bulk.groovy``, compiled by the Groovy that every QuPath brings along.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qprd.errors import DiskError, ExitCode, QprdError

#: Older QuPaths cannot create data for a slide that is not there.
MIN_VERSION = (0, 6)

#: What paquo sets where the user did not; only then do we set our own.
_PAQUO_JAVA_OPTIONS = ["-XX:MaxRAMPercentage=50"]
_JAVA_OPTIONS = [
    # Training and prediction need the rest of the memory.
    "-XX:MaxRAMPercentage=25",
    "-Djava.awt.headless=true",
    # Most processes end before the second compiler pays off; it doubles the start.
    "-XX:TieredStopAtLevel=1",
]
#: Without it the JVM takes over Ctrl-C and ends the process on the spot.
_KEEP_SIGNALS = "-Xrs"

_GET_QUPATH = (
    "paquo get_qupath --install-path DIR 0.6.0, then set PAQUO_QUPATH_DIR to the folder it made;"
    " or work without QuPath: --backend exchange"
)


@dataclass(frozen=True)
class QuPathInstallation:
    """A QuPath on this computer.

    Attributes:
        version: Such as ``0.6.0``; ``unknown`` if its files do not say.
    """

    path: Path
    version: str

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, None if it can."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        if numbers and tuple(map(int, numbers.groups())) < MIN_VERSION:
            needed = ".".join(map(str, MIN_VERSION))
            return f"QuPath {self.version} is too old: {needed} or later is needed"
        return None


def find_qupath() -> QuPathInstallation | None:
    """The QuPath that paquo would start, None if it finds none. Starts nothing."""
    try:
        # This part of paquo does not start the JVM.
        from paquo._config import settings, to_kwargs
        from paquo.jpype_backend import find_qupath as find
    except ImportError:  # left out by who distributes qprd without code under the GPL
        return None
    try:
        found = find(**to_kwargs(settings))
    except (ValueError, OSError):
        return None
    versions = [
        match.group(1)
        for match in (
            re.fullmatch(r"qupath-core-(\d[\w.-]*)\.jar", jar.name)
            for jar in sorted(Path(found.app_dir).glob("qupath-core-*.jar"))
        )
        if match
    ]
    return QuPathInstallation(Path(found.app_dir), versions[0] if versions else "unknown")


def where_searched() -> str:
    """Say where `find_qupath` looks."""
    given = os.environ.get("PAQUO_QUPATH_DIR")
    return f"in the folder that PAQUO_QUPATH_DIR names ({given})" if given else "on this computer"


@dataclass(frozen=True)
class QuPath:
    """A running QuPath, and the Java classes ``Bulk`` and ``DataFile`` of ``bulk.groovy``."""

    version: str
    bulk: Any
    data_file: Any


@cache
def start_qupath() -> QuPath:
    """Start QuPath in this process, or return the one that runs.

    Raises:
        QprdError: there is none, it is too old, or it does not start.
    """
    installation = find_qupath()
    if installation is None:
        raise QprdError(f"paquo finds no QuPath {where_searched()}.", fix=_GET_QUPATH)
    if installation.problem is not None:
        raise QprdError(f"{installation.problem}.", where=str(installation.path), fix=_GET_QUPATH)
    try:
        _start_jvm()
    except (RuntimeError, OSError, ImportError, TypeError) as error:
        raise QprdError(
            f"QuPath's Java does not start: {error}.",
            where=str(installation.path),
            fix="Check PAQUO_JAVA_OPTS, or work without QuPath: --backend exchange",
            exit_code=ExitCode.FAILED,
        ) from error
    return _compile_bulk(installation)


def _start_jvm() -> None:
    from paquo._config import settings

    options = settings.java_opts
    options = options.split() if isinstance(options, str) else list(options)
    if options == _PAQUO_JAVA_OPTIONS:
        options = _JAVA_OPTIONS
    settings.java_opts = [*options, _KEEP_SIGNALS]
    # The JVM starts at this import; paquo then asks QuPath to log all there is.
    from paquo.java import LogManager

    if LogManager is not None:
        LogManager.setWarn()


def _compile_bulk(installation: QuPathInstallation) -> QuPath:
    from jpype import JClass
    from paquo.java import GeneralTools, PathIO

    with qupath_call("This QuPath cannot be used", installation.path):
        loader = JClass("groovy.lang.GroovyClassLoader")(PathIO.class_.getClassLoader())
        source = Path(__file__).with_name("bulk.groovy").read_text(encoding="utf-8")
        loader.parseClass(source)
        return QuPath(
            version=str(GeneralTools.getVersion()),
            bulk=JClass(loader.loadClass("Bulk")),
            data_file=JClass(loader.loadClass("DataFile")),
        )


@contextmanager
def qupath_call(problem: str, where: Path) -> Iterator[None]:
    """Run calls into QuPath: its log goes to the logger ``qupath``, its exceptions become ours.

    Not to be nested. ``problem`` says what has failed then, without a full stop.

    Raises:
        QprdError: Java raised an exception, or ran out of memory.
    """
    import jpype
    from paquo._logging import redirect

    try:
        with redirect(stdout=True, stderr=True):
            yield
    except jpype.JException as error:
        kind = str(error.getClass().getName())
        message = str(error.getMessage() or kind)
        fix, full = None, "No space left" in message
        if kind == "java.lang.OutOfMemoryError":
            fix = "Give Java more memory: PAQUO_JAVA_OPTS='[\"-Xmx8g\"]'"
        elif full:
            fix = "Free some space and run it again."
        raise (DiskError if full else QprdError)(
            f"{problem}: {message}.", where=str(where), fix=fix, exit_code=ExitCode.FAILED
        ) from error
