"""Read weights from disk without running any code, and hash them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from qprd.errors import QprdError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` or a PyTorch file.

    PyTorch files are read with ``weights_only=True``, so they can hold tensors, not code. A state
    dict inside a ``state_dict`` or ``model`` entry is found.

    Raises:
        QprdError: the file is missing or is not a state dict.
    """
    if not path.is_file():
        raise QprdError(
            "There is no such weights file.",
            where=str(path),
            fix="Check the path given to --weights.",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle raises whatever the instructions that it seems to hold lead to.
        # torch's own advice, to load without weights_only, must not reach the user.
        raise QprdError(
            "The weights file cannot be read as tensors.",
            where=str(path),
            fix="Give a .safetensors file, or a .pth file that holds only a state dict.",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise QprdError(
            "The weights file holds no state dict.",
            where=str(path),
            fix="Give a file that torch.save(network.state_dict(), FILE) wrote, or safetensors.",
        )
    return dict(state)


def read_cached_state(name: str, path: Path) -> dict[str, Tensor]:
    """Read the weights of a teacher that were downloaded before.

    Raises:
        QprdError: the file is damaged, as by a download that broke off or a page to log in.
    """
    # The file itself: without its link alone, a cache would take it again.
    path = path.resolve()
    try:
        return read_state(path)
    except QprdError as error:
        raise QprdError(
            f"The weights of {name} were downloaded before, but the file is damaged.",
            where=str(path),
            fix="Delete this file; it will be downloaded again.",
        ) from error


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy a state into a module; batch counters may be missing, anything else must be there.

    Args:
        module: Takes the weights.
        state: May hold more than the module needs, such as a classifier.
        where: Where it comes from, for the message.

    Raises:
        QprdError: tensors are missing or have another shape.
    """
    own = module.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise QprdError(f"The weights lack {name!r}.", where=where, fix=_OTHER_MODEL)
        if state[name].shape != tensor.shape:
            raise QprdError(
                f"The weight {name!r} has shape {tuple(state[name].shape)}, "
                f"not {tuple(tensor.shape)}.",
                where=where,
                fix=_OTHER_MODEL,
            )
    module.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})


_OTHER_MODEL = "These are the weights of another model: check --weights and --teacher."


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash the names, shapes, types and bytes of a state, the same on every machine.

    Batch counters do not count: they have no effect, and old checkpoints lack them.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        array = state[name].detach().cpu().contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
