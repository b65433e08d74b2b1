"""The size of the fields that fit into the memory of a device."""

from __future__ import annotations

import math
import os
from typing import Final

import torch

from qprd.checked import STRIDE_PX
from qprd.errors import ExitCode, QprdError
from qprd.scoring.fields import HALO_PX

#: Smallest and largest edge of the largest core that fits; it may be halved three times.
_MIN_CORE_PX: Final = 256
_MAX_CORE_PX: Final = 2048
_HALVINGS: Final = 3

#: Share of the free memory that a field may take.
_FIELD_SHARE: Final = 0.5
#: Bytes of main memory for weights and fields on a CPU; larger fields are hardly faster there.
_CPU_BYTES: Final = 5 << 29


def cores_px(free: int, per_px: float) -> list[int]:
    """Edges that the core of a field may have, ascending: the largest that fits, and its halves."""
    edge = math.sqrt(free * _FIELD_SHARE / per_px) - 2 * HALO_PX
    largest = int(min(max(edge, _MIN_CORE_PX), _MAX_CORE_PX))
    return [(largest >> halvings) // STRIDE_PX * STRIDE_PX for halvings in range(_HALVINGS, -1, -1)]


def free_bytes(device: torch.device, weights: int) -> int:
    """Memory for fields; on a CPU half of it all, with the weights, and at most 2.5 GiB.

    What is free on a CPU changes from moment to moment, and with the size of a field the last
    digits of the scores would, too.

    Args:
        device: Where the network is.
        weights: Bytes of the network's weights.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        # What is allocated may be more than what is recommended.
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    try:
        half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        half = _CPU_BYTES
    return max(min(half, _CPU_BYTES) - weights, 0)


def out_of_memory(device: torch.device) -> QprdError:
    """The error for a device without enough memory for the smallest field."""
    return QprdError(
        f"The memory of {device} is too small for the network, even for a small field.",
        where="--device",
        fix="End what else uses it, or use --device cpu.",
        exit_code=ExitCode.FAILED,
    )
