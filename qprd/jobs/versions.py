"""The versions of qprd and of what it works with, found without loading PyTorch or Java."""

from __future__ import annotations

import importlib.metadata
import platform

from qprd.qupath.java import find_qupath
from qprd.version import __version__


def installed_version(package: str) -> str:
    """The version of an installed package, or ``not installed``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Find the versions of qprd, Python, PyTorch, OpenSlide and QuPath, without loading them.

    Examples:
        >>> list(qprd.versions())
        ['qprd', 'Python', 'PyTorch', 'OpenSlide', 'QuPath']
    """
    qupath = find_qupath()
    return {
        "qprd": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "PyTorch": installed_version("torch"),
        "OpenSlide": openslide_library() or "not installed",
        "QuPath": "none found" if qupath is None else f"{qupath.version} in {qupath.path}",
    }


def openslide_library() -> str | None:
    """The version of the OpenSlide library, None where there is none that can be loaded."""
    try:
        import openslide
    except (ImportError, OSError):
        return None
    return str(openslide.__library_version__)
