from __future__ import annotations

import pytest
import torch

from qprd.device import has_bf16_units, make_fabric
from qprd.errors import QprdError
from qprd.settings import Precision


@pytest.mark.parametrize(
    ("units", "precision", "expected"),
    [
        (True, "auto", "bf16-mixed"),
        (False, "auto", "32-true"),
        (True, "32", "32-true"),
        (False, "bf16", "bf16-mixed"),
    ],
)
def test_the_cpu_computes_in_bf16_where_it_has_units_unless_told_otherwise(
    units: bool, precision: Precision, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units}, raising=False)
    fabric = make_fabric("cpu", precision)
    assert fabric.device == torch.device("cpu")
    assert fabric._precision.precision == expected


def test_a_pytorch_that_does_not_say_has_no_bf16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bf16_units("cpu")


def test_bf16_on_the_cpu_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = make_fabric("cpu", "bf16")
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16


def test_auto_takes_what_is_there() -> None:
    expected = "cpu"
    if torch.cuda.is_available():
        expected = "cuda"
    elif torch.backends.mps.is_available():
        expected = "mps"
    assert make_fabric("auto", "32").device.type == expected


def test_half_precision_on_the_cpu_is_refused() -> None:
    with pytest.raises(QprdError, match="GPU") as caught:
        make_fabric("cpu", "16")
    assert caught.value.where == "--precision"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_missing_cuda_device_is_said(device: str) -> None:
    with pytest.raises(QprdError, match="no CUDA device") as caught:
        make_fabric(device, "auto")
    assert caught.value.where == "--device"
    assert "--device cpu" in (caught.value.fix or "")


def test_a_cuda_device_beyond_the_last_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(QprdError, match="no CUDA device 2; PyTorch sees 2"):
        make_fabric("cuda:2", "32")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_a_missing_mps_device_is_said() -> None:
    with pytest.raises(QprdError, match="no MPS device"):
        make_fabric("mps", "auto")
