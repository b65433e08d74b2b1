"""Check of PyTorch: that its build fits the machine, and that the device it would use computes."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import sys
from typing import TYPE_CHECKING, Final

from qprd.cores import cores
from qprd.jobs.doctor.checks import Check, failure, passed, warning
from qprd.jobs.versions import installed_version

if TYPE_CHECKING:
    import torch

_INDEX: Final = "https://download.pytorch.org/whl/"

#: PyTorch's build by the newest CUDA that the driver runs; it also runs older ones of its major.
_CUDA_BUILDS: Final = {13: "cu130", 12: "cu126"}


def check_torch() -> Check:
    """Check that PyTorch loads, sees the machine's GPU, and convolves right on what it sees."""
    version, vision = installed_version("torch"), installed_version("torchvision")
    found = f"{version}, torchvision {vision}"
    wanted = _torch_of_torchvision()
    if wanted is not None and wanted != version.partition("+")[0]:
        return failure(
            "PyTorch",
            f"{found}: this torchvision was made for torch {wanted} and will not work",
            f"pip install torch=={wanted} torchvision=={vision.partition('+')[0]}",
        )
    try:
        import torch
    except (ImportError, OSError) as error:
        return failure(
            "PyTorch",
            f"{found} cannot be loaded: {error}",
            _install("cpu") + "; on Windows also Microsoft's Visual C++ Redistributable",
        )
    devices = _devices()
    for device in devices:
        problem = _convolution_problem(device)
        if problem is not None:
            return failure(
                "PyTorch",
                f"{found} does not compute on {device}: {problem}",
                "Install a PyTorch that fits the device: https://pytorch.org/get-started/locally"
                + ("" if device.type == "cpu" else "; or use --device cpu"),
            )
    kind = devices[0].type
    if kind == "cuda":
        names = ", ".join(map(torch.cuda.get_device_name, devices))
        return passed("PyTorch", f"{found}, CUDA: {names}")
    if kind == "mps":
        return passed("PyTorch", f"{found}, MPS")
    return _on_cpu(found, torch.version.cuda)


def _on_cpu(found: str, built_for: str | None) -> Check:
    """The check of a PyTorch that computes on the CPU; ``built_for`` is the CUDA of its build."""
    driver = _driver_cuda()
    if driver is None:
        hint = f"; a build without CUDA saves 5 GB: {_install('cpu')}" if built_for else ""
        return passed(
            "PyTorch",
            f"{found}, CPU with {cores()} cores (no GPU seen: training with the paper's teacher "
            f"takes hours; efficientnet_lite0 takes minutes{hint})",
        )
    major, minor = driver
    build = _CUDA_BUILDS.get(min(major, max(_CUDA_BUILDS)))
    update = "Update NVIDIA's driver, then: "
    if built_for is None:
        return warning(
            "PyTorch",
            f"{found} is a build without CUDA, so the GPU is not used (its driver runs CUDA "
            f"{major}.{minor})",
            _install(build) if build else update + _install(_CUDA_BUILDS[max(_CUDA_BUILDS)]),
        )
    return warning(
        "PyTorch",
        f"{found} is built for CUDA {built_for} and does not use the GPU, whose driver runs CUDA "
        f"{major}.{minor}",
        f"Update NVIDIA's driver{f'; or {_install(build)}' if build else ''}",
    )


def _install(build: str) -> str:
    return f"pip install --force-reinstall torch torchvision --index-url {_INDEX}{build}"


def _devices() -> list[torch.device]:
    """All devices of the kind that ``--device auto`` takes."""
    import torch

    if torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]


def _convolution_problem(device: torch.device) -> str | None:
    """Why a convolution of ones fails there or gives other sums, None if it does not."""
    import torch

    try:
        image = torch.ones(1, 3, 64, 64, device=device)
        kernel = torch.ones(8, 3, 3, 3, device=device)
        sums = torch.nn.functional.conv2d(image, kernel).cpu()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).partition("\n")[0].rstrip(".")
    return None if bool((sums == 27).all()) else "a convolution gives wrong sums"


def _torch_of_torchvision() -> str | None:
    """The version of torch that torchvision was made for, None if it does not say."""
    try:
        requirements = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pinned = (re.match(r"torch\s*\(?==\s*([0-9.]+)", line) for line in requirements)
    return next((match[1] for match in pinned if match), None)


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that NVIDIA's driver runs; None without a driver or without a GPU."""
    count, version = ctypes.c_int(), ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGetCount(ctypes.byref(count))
            or driver.cuDriverGetVersion(ctypes.byref(version))
        )
    except (OSError, AttributeError):
        return None
    if failed or count.value == 0:
        return None
    return version.value // 1000, version.value % 1000 // 10
