"""From ``--device``, ``--devices`` and ``--precision`` to a Lightning Fabric."""

from __future__ import annotations

import logging
import os
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
        QprdError: the device is not there, or there are not so many.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import environments
    from lightning_fabric.strategies.ddp import DDPStrategy

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
    # Fabric tells about the precision that qprd itself chose
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    rank, known = this_rank(), torch.cuda.device_count() if kind == "cuda" else 1
    if rank.launcher == "srun":
        # Fabric asks for it; srun sets it only where the job names it.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(rank.local_count))
    started_by = getattr(environments, _ENVIRONMENTS[rank.launcher])()
    precise = _fabric_precision(precision, kind)
    if devices == "auto":
        devices = known
    if devices is None or max(devices, rank.count) == 1:
        alone = int(number) if number else rank.local % known
        return Fabric(
            accelerator=kind,
            devices=[alone] if kind == "cuda" else 1,
            plugins=[started_by],
            precision=precise,
        )
    if rank.count > 1:
        devices = rank.local_count
    if number or kind == "mps" or (kind == "cuda" and devices > known):
        has = f"--device {device} is one" if number or kind == "mps" else f"PyTorch sees {known}"
        raise QprdError(
            f"{devices} processes need a device each; {has}.",
            where="--devices",
            fix="Start fewer processes, or use another --device.",
        )
    return Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=max(rank.count // devices, 1),
        # Batch norms see all processes, so that their buffers are the same anyway.
        strategy=DDPStrategy(timeout=_PATIENCE, broadcast_buffers=False),
        plugins=[started_by],
        precision=precise,
    )


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
