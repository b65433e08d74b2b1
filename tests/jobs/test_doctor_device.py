from __future__ import annotations

import importlib.metadata

import pytest
import torch

from qprd.jobs.doctor import device
from qprd.jobs.doctor.checks import Check, Status

CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose GPU, if any, this PyTorch does not use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def check(
    monkeypatch: pytest.MonkeyPatch, *, built_for: str | None, driver: tuple[int, int] | None
) -> Check:
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(device, "_driver_cuda", lambda: driver)
    return device.check_torch()


@pytest.mark.parametrize("built_for", [None, "13.0"])
def test_without_a_gpu_a_build_with_cuda_is_told_of_the_smaller_one(
    built_for: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(monkeypatch, built_for=built_for, driver=None)
    assert found.status is Status.PASS
    assert "no GPU seen" in found.finding
    assert (CPU_INDEX in found.finding) == (built_for is not None)


@pytest.mark.parametrize(
    ("driver", "command"),
    [
        ((13, 1), "pip install --force-reinstall torch torchvision --index-url https://download"),
        ((12, 4), "pip install --force-reinstall torch torchvision --index-url https://download"),
        ((11, 8), "Update NVIDIA's driver, then: pip install"),
    ],
)
def test_a_driver_and_a_torch_without_cuda_are_a_warning_with_the_command(
    driver: tuple[int, int], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(monkeypatch, built_for=None, driver=driver)
    assert found.status is Status.WARN
    assert "without CUDA" in found.finding
    assert found.fix is not None
    assert found.fix.startswith(command)
    assert found.fix.endswith("cu126" if driver[0] == 12 else "cu130")


def test_a_driver_too_old_for_the_build_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, built_for="13.0", driver=(12, 4))
    assert found.status is Status.WARN
    assert "built for CUDA 13.0" in found.finding
    assert found.fix is not None
    assert found.fix.endswith("cu126")


def test_a_device_that_does_not_compute_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    # No memory is behind the tensors of this device, so nothing can be read from them.
    monkeypatch.setattr(device, "_devices", lambda: [torch.device("meta")])
    found = device.check_torch()
    assert found.status is Status.FAIL
    assert "does not compute on meta" in found.finding
    assert "--device cpu" in (found.fix or "")


def test_wrong_sums_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *_: torch.zeros(1))
    assert "wrong sums" in device.check_torch().finding


def test_a_torchvision_made_for_another_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["numpy", "torch ==2.9.1", 'gdown>=4.7.3; extra == "gdown"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requires)
    found = device.check_torch()
    assert found.status is Status.FAIL
    assert "made for torch 2.9.1" in found.finding
