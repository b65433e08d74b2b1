"""From ``--device`` and ``--precision`` to a Lightning Fabric."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from qprd.errors import QprdError
from qprd.settings import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(device: str, precision: Precision) -> Fabric:
    """A Fabric on one device, not yet launched.

    ``auto`` takes CUDA, then MPS, then the CPU. ``precision="auto"`` is bf16 where
    `has_bf16_units` and 32 bit elsewhere.

    Raises:
        QprdError: the device is not there.
    """
    import torch
    from lightning_fabric import Fabric

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
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise QprdError("PyTorch sees no MPS device.", where="--device", fix="Use --device cpu.")
    # Fabric tells about the precision that qprd itself chose
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(
        accelerator=kind,
        devices=[int(number)] if number else 1,
        precision=_fabric_precision(precision, kind),
    )


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
