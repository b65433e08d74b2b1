from __future__ import annotations

import sys

import pytest
import torch

from qprd.device import count_processes, has_bf16_units, make_fabric
from qprd.errors import QprdError
from qprd.ranks import Rank, this_rank
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


_LAUNCHED = {
    "torchrun": {
        "TORCHELASTIC_RUN_ID": "none",
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
    },
    "srun": {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_NTASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
    },
}


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in {"SLURM_NTASKS_PER_NODE", *(n for names in _LAUNCHED.values() for n in names)}:
        monkeypatch.setenv(name, "")  # so that what Fabric's environment sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_a_process_of_a_launcher_knows_its_place(
    launcher: str, no_launcher: pytest.MonkeyPatch
) -> None:
    for name, value in _LAUNCHED[launcher].items():
        no_launcher.setenv(name, value)
    rank = this_rank()
    assert (rank.number, rank.count, rank.local, rank.local_count) == (3, 4, 1, 2)
    assert not rank.is_first
    together = make_fabric("cpu", "32", 1)
    assert (together.world_size, together.global_rank) == (4, 3)
    assert make_fabric("cpu", "32").world_size == 1


def test_a_slurm_job_without_srun_is_one_process(no_launcher: pytest.MonkeyPatch) -> None:
    no_launcher.setenv("SLURM_NTASKS", "4")
    no_launcher.setenv("SLURM_PROCID", "0")
    assert this_rank() == Rank()
    assert make_fabric("cpu", "32", 1).world_size == 1


def test_a_notebook_is_told_that_it_trains_on_one_device(no_launcher: pytest.MonkeyPatch) -> None:
    no_launcher.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(QprdError, match="A notebook cannot train on 2 devices") as caught:
        make_fabric("cpu", "32", 2)
    assert "qprd train --devices" in str(caught.value.fix)
    assert make_fabric("cpu", "32", 1).world_size == 1
    # A prediction starts processes that do not run the program again.
    assert count_processes("cpu", 2) == 2


def test_several_devices_are_as_many_processes(no_launcher: pytest.MonkeyPatch) -> None:
    assert make_fabric("cpu", "32", "auto").world_size == 1
    assert make_fabric("cpu", "32", 2).world_size == 2
    with no_launcher.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        for device, devices in (("cuda:0", 2), ("cuda", 3)):
            with pytest.raises(QprdError, match="need a device each"):
                make_fabric(device, "32", devices)
