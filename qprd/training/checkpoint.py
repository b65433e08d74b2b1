"""The checkpoint of a training: all that it needs to go on as if it had not been stopped.

One safetensors file, which is replaced after each epoch, all or nothing. What is no tensor is JSON
in its header.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from qprd.errors import QprdError
from qprd.files.atomic import replacing, write_errors
from qprd.files.tensors import save_tensors

#: The name of the file in the folder of a run.
CHECKPOINT_FILE: Final = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training at the end of an epoch.

    Attributes:
        tensors: By part and name, such as ``model`` and ``student.conv.weight``.
        record: The rest, as JSON has it.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    record: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Replace the checkpoint in a folder.

        Raises:
            QprdError: it cannot be written; the one before is still there.
        """
        named = {
            f"{part}/{name}": tensor
            for part, tensors in self.tensors.items()
            for name, tensor in tensors.items()
        }
        path = folder / CHECKPOINT_FILE
        with write_errors("The checkpoint", path), replacing(path) as new:
            save_tensors(named, new, {"record": json.dumps(self.record)})

    @classmethod
    def load(cls, folder: Path | None) -> Checkpoint | None:
        """Read the checkpoint in a folder; None if there is none.

        Raises:
            QprdError: it is damaged.
        """
        if folder is None or not has_checkpoint(folder):
            return None
        tensors: dict[str, dict[str, Tensor]] = {}
        with (
            damaged_unless_whole(folder),
            safe_open(folder / CHECKPOINT_FILE, framework="pt", device="cpu") as file,
        ):
            for name in file.keys():  # noqa: SIM118
                part, _, within = name.partition("/")
                tensors.setdefault(part, {})[within] = file.get_tensor(name).clone()
            return cls(tensors, json.loads(file.metadata()["record"]))

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of a part; empty if there are none."""
        return dict(self.tensors.get(name, {}))


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in a folder, intact or not."""
    return (folder / CHECKPOINT_FILE).is_file()


@contextmanager
def damaged_unless_whole(folder: Path) -> Iterator[None]:
    """Turn errors of a checkpoint that does not fit into one that says that it is damaged."""
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise QprdError(
            f"The checkpoint is damaged: {error}",
            where=str(folder / CHECKPOINT_FILE),
            fix="Train anew without --resume, and delete the run's folder.",
        ) from error


def optimizer_parts(
    optimizer: torch.optim.Optimizer, schedule: LRScheduler | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the state of an optimizer and its schedule apart: tensors, and the rest."""
    state = optimizer.state_dict()
    tensors = {
        f"{parameter}.{name}": tensor
        for parameter, values in state["state"].items()
        for name, tensor in values.items()
    }
    return tensors, {
        "groups": state["param_groups"],
        "schedule": None if schedule is None else schedule.state_dict(),
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler | None,
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
) -> None:
    """Put together what `optimizer_parts` took apart."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        values = state.setdefault(int(number), {})
        values[name] = tensor
        if tensor.shape == like.shape:
            # The memory layout of the parameter, in which the optimizer made it.
            values[name] = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
    if schedule is not None:
        schedule.load_state_dict(rest["schedule"])


def random_states(generator: torch.Generator) -> dict[str, Tensor]:
    """The states of PyTorch's random numbers, and of a generator."""
    states = {"torch": torch.get_rng_state(), "order": generator.get_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Set what `random_states` read."""
    torch.set_rng_state(states["torch"])
    generator.set_state(states["order"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
