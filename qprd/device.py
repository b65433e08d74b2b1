"""From ``--device``, ``--devices`` and ``--precision`` to a Lightning Fabric."""

from __future__ import annotations

import logging
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from qprd.errors import QprdError
from qprd.ranks import Launcher, this_rank
from qprd.settings import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Fabric's name of what started the processes.
_ENVIRONMENTS: Final[dict[Launcher, str]] = {
    "torchrun": "TorchElasticEnvironment",
    "srun": "SLURMEnvironment",
    "qprd": "LightningEnvironment",
}
#: For which the other processes wait for the first one, which finds tissue and reads patches.
_PATIENCE: Final = timedelta(days=7)


def make_fabric(
    device: str, precision: Precision, devices: int | Literal["auto"] | None = None
) -> Fabric:
    """A Fabric, not yet launched.

    ``auto`` takes CUDA, then MPS, then the CPU. ``precision="auto"`` is bf16 where
    `has_bf16_units` and 32 bit elsewhere.

    Args:
        device: Kind of device, or one of them.
        precision: Of the network.
        devices: Number of processes that compute together, each on a device of its own, or all
            GPUs; where a launcher started several, these. None: this process alone, on the device
            that its place among them gives.

    Raises:
        QprdError: the device is not there, there are not so many, or they cannot be used together
            from where this process runs.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import environments
    from lightning_fabric.strategies.ddp import DDPStrategy

    kind, number = _find_device(device)
    # Fabric would report the precision that qprd itself chose.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    rank = this_rank()
    if rank.launcher == "srun":
        # Fabric asks for it; srun sets it only where the job names it.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(rank.local_count))
    started_by = getattr(environments, _ENVIRONMENTS[rank.launcher])()
    precise = _fabric_precision(precision, kind)
    if devices is None or (count := count_processes(device, devices)) == 1:
        alone = int(number) if number else rank.local % _count_devices(kind)
        return Fabric(
            accelerator=kind,
            devices=[alone] if kind == "cuda" else 1,
            plugins=[started_by],
            precision=precise,
        )
    if rank.count == 1 and hasattr(sys, "ps1"):
        raise QprdError(
            f"A notebook cannot train on {count} devices: each needs a process of its own that "
            "runs the program from its beginning.",
            where="devices",
            fix="Leave devices out here, or run qprd train --devices in a terminal.",
        )
    here = rank.local_count if rank.count > 1 else count
    return Fabric(
        accelerator=kind,
        devices=here,
        num_nodes=max(count // here, 1),
        # Batch norms see all processes, so that their buffers are the same anyway.
        strategy=DDPStrategy(timeout=_PATIENCE, broadcast_buffers=False),
        plugins=[started_by],
        precision=precise,
    )


def count_processes(device: str, devices: int | Literal["auto"]) -> int:
    """Number of processes of a command: those of its launcher, or one for each of the devices.

    Args:
        device: Kind of device, or one of them.
        devices: Number of devices, or all GPUs.

    Raises:
        QprdError: the device is not there, or there are not so many.
    """
    kind, number = _find_device(device)
    rank, known = this_rank(), _count_devices(kind)
    count = known if devices == "auto" else devices
    if max(count, rank.count) == 1:
        return 1
    here = rank.local_count if rank.count > 1 else count
    if number or kind == "mps" or (kind == "cuda" and here > known):
        has = f"--device {device} is one" if number or kind == "mps" else f"PyTorch sees {known}"
        raise QprdError(
            f"{here} processes need a device each; {has}.",
            where="--devices",
            fix="Start fewer processes, or use another --device.",
        )
    return max(rank.count, here)


def _find_device(device: str) -> tuple[str, str]:
    """Kind and number of a device; the number is empty if any will do.

    Raises:
        QprdError: there is none.
    """
    import torch

    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise QprdError(
            "PyTorch sees no CUDA device.",
            where="--device",
            fix="Use --device cpu, or install a PyTorch that matches the machine's driver.",
        )
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise QprdError(
            f"There is no CUDA device {number}; PyTorch sees {torch.cuda.device_count()}.",
            where="--device",
            fix="Use --device cuda, or a smaller number; they count from 0.",
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise QprdError("PyTorch sees no MPS device.", where="--device", fix="Use --device cpu.")
    return kind, number


def _count_devices(kind: str) -> int:
    """Devices of a kind on this machine; a CPU is one."""
    import torch

    return torch.cuda.device_count() if kind == "cuda" else 1


def end_others(fabric: Fabric) -> None:
    """End the processes that this one has started to compute with it, if they are still there."""
    started = getattr(fabric.strategy.launcher, "procs", [])
    for process in started:
        process.kill()
    started.clear()  # whoever watches over them would end this process too


FabricPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


def has_bf16_units(kind: str) -> bool:
    """Whether a device computes in bf16 by itself; emulated, bf16 is slower than 32 bit.

    GPUs have them from Ampere on, Intel's server CPUs from Sapphire Rapids on (AMX).

    Args:
        kind: ``cpu``, ``cuda`` or ``mps``.
    """
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in older releases
    return kind == "cpu" and capabilities is not None and bool(capabilities().get("amx_bf16"))


def _fabric_precision(precision: Precision, kind: str) -> FabricPrecision:
    if precision == "auto":
        return "bf16-mixed" if has_bf16_units(kind) else "32-true"
    if precision == "16" and kind == "cpu":
        raise QprdError(
            "Half precision needs a GPU.", where="--precision", fix="Use 32, bf16 or auto."
        )
    names: dict[str, FabricPrecision] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    return names[precision]
