"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use: on a cluster often a few of many."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
