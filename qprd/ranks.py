"""The processes that work together on one command, and which of them this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

#: What started the processes: torchrun (and ``fabric run``), srun, or this command itself.
Launcher = Literal["torchrun", "srun", "qprd"]


@dataclass(frozen=True)
class Rank:
    """One of the processes of a command.

    Attributes:
        number: From 0; the first one reads the project, writes and prints.
        count: Number of processes on all machines.
        local: Its number on this machine, from 0: which device it takes.
        local_count: Number of processes on this machine.
        launcher: What started them.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1
    launcher: Launcher = "qprd"

    @property
    def is_first(self) -> bool:
        """Whether this process reads the project, writes and prints."""
        return self.number == 0


def this_rank() -> Rank:
    """Read from the environment which process this is; without a launcher it is the only one.

    A Slurm job that calls qprd without srun is one process, however many tasks the job has.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Rank(
            int(os.environ["RANK"]),
            int(os.environ["WORLD_SIZE"]),
            int(os.environ["LOCAL_RANK"]),
            int(os.environ["LOCAL_WORLD_SIZE"]),
            launcher="torchrun",
        )
    count = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if count > 1:
        # Such as "2(x3)", for each of three nodes.
        per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(count))
        local_count = int(per_node.split("(")[0].split(",")[0])
        number, local = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])
        return Rank(number, count, local, local_count, launcher="srun")
    # Lightning Fabric sets these when it starts the other processes on this machine.
    if "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ:
        local, count = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
        return Rank(local, count, local, count)
    return Rank()
