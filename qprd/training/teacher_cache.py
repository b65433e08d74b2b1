"""Cache of the frozen teacher's maps of training patches."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qprd.sampling.dataset import SYMMETRIES

#: Share of the machine's memory that maps may take where there is no folder for them.
_SHARE_OF_MEMORY: Final = 0.25
#: Taken for the machine's memory where the system does not say.
_MEMORY_BYTES: Final = 8 * 2**30
#: Share of the free disk that maps may take.
_SHARE_OF_DISK: Final = 0.5

_FLOAT_BYTES: Final = 4


class TeacherCache:
    """Runs the teacher once on each view of a patch, as far as there is room to keep its maps.

    A view is a patch in one of its symmetries. Views are kept as they come until the room is
    full; the others are computed each time. That pays on a CPU, where the network is slower than
    memory and disk; a GPU computes maps faster than they could be copied to it.

    Args:
        teacher: From images (B, 3, p, p) to maps, float32, (B, C, H, W); always the same
            for the same images.
        shapes: (C, H, W) of each map.
        patches: Patches there are.
        symmetries: In how many symmetries they come again: 8 with augmentation, else 1.
        budget_bytes: Most room that the maps may take.
        folder: Where files of maps go, up to half of the free disk; those of a training that is
            resumed are found again. None keeps in memory what fits into a quarter of it.

    Attributes:
        size_bytes: Room that is taken when all of it is used.
        computed: Views the teacher was run on so far.

    Raises:
        OSError: the files cannot be written.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Sequence[Tensor]],
        shapes: Sequence[tuple[int, int, int]],
        *,
        patches: int,
        symmetries: int,
        budget_bytes: int,
        folder: Path | None = None,
    ) -> None:
        self._teacher = teacher
        self._symmetries = symmetries
        self._views = patches * symmetries
        view_bytes = _FLOAT_BYTES * sum(math.prod(shape) for shape in shapes)
        slots = min(self._views, budget_bytes // view_bytes)
        # Kept as they are by a training that is resumed, whatever the disk has free by now.
        files = [
            None if folder is None else folder / f"teacher_maps_{scale}.bin"
            for scale in range(1, len(shapes) + 1)
        ]
        if folder is None:
            slots = min(slots, int(_SHARE_OF_MEMORY * _memory_bytes()) // view_bytes)
        elif files[0] is not None and files[0].is_file():
            slots = files[0].stat().st_size // (_FLOAT_BYTES * math.prod(shapes[0]))
        else:
            slots = min(slots, int(_SHARE_OF_DISK * shutil.disk_usage(folder).free) // view_bytes)
        self.size_bytes = slots * view_bytes
        self.computed = 0
        self._slots = slots
        self._used = 0
        self._slot_of = np.full(patches * SYMMETRIES, -1, np.int64)
        # Channels last, as the network wants them.
        arrays = [
            np.empty((slots, height, width, channels), np.float32)
            if file is None or not slots
            else _mapped(file, (slots, height, width, channels))
            for file, (channels, height, width) in zip(files, shapes, strict=True)
        ]
        self._files = [array for array in arrays if isinstance(array, np.memmap)]
        self._kept = [torch.from_numpy(array) for array in arrays]

    def __str__(self) -> str:
        """Describe the memory or disk space it takes."""
        where = "on disk" if self.in_files else "in memory"
        share = self._slots / self._views if self._views else 0.0
        return f"teacher's maps: {self.size_bytes / 2**30:.2g} GiB {where} for {share:.0%} of views"

    def maps(
        self, images: Tensor, patches: NDArray[np.int64], symmetries: NDArray[np.int64]
    ) -> list[Tensor]:
        """Return the teacher's maps of a batch.

        Args:
            images: (B, 3, p, p), on the CPU.
            patches: int64, (B,): which patches these are.
            symmetries: int64, (B,), 0..7: how each is turned.

        Returns:
            Maps (B, C, H, W), channels last in memory; not to be written to.
        """
        views = patches * SYMMETRIES + symmetries
        slots = self._slot_of[views]
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            at = torch.from_numpy(slots)
            return [kept[at].permute(0, 3, 1, 2) for kept in self._kept]
        everything = len(missing) == len(views)
        new = self._teacher(images if everything else images[torch.from_numpy(missing)])
        self.computed += len(missing)
        self._keep(views[missing], symmetries[missing], new)
        if everything:
            return list(new)
        known = np.flatnonzero(slots >= 0)
        merged = []
        for kept, of_missing in zip(self._kept, new, strict=True):
            both = torch.empty((len(views), *kept.shape[1:]))
            both[torch.from_numpy(known)] = kept[torch.from_numpy(slots[known])]
            both[torch.from_numpy(missing)] = of_missing.permute(0, 2, 3, 1)
            merged.append(both.permute(0, 3, 1, 2))
        return merged

    @property
    def in_files(self) -> bool:
        """Whether maps are kept in files and not in memory."""
        return bool(self._files)

    def state(self) -> Tensor:
        """Where each view is kept, for `restore`; the files are forced to the disk."""
        for file in self._files:
            file.flush()
        return torch.from_numpy(self._slot_of.copy())

    def restore(self, state: Tensor) -> None:
        """Find the maps again that were in the files when `state` was asked.

        Raises:
            ValueError: the state is of another cache.
        """
        slot_of, used = state.numpy(), int((state >= 0).sum())
        if slot_of.shape != self._slot_of.shape or slot_of.max(initial=-1) >= self._slots:
            raise ValueError("the teacher's maps are of another training")
        self._slot_of, self._used = slot_of.copy(), used

    def _keep(
        self, views: NDArray[np.int64], symmetries: NDArray[np.int64], maps: Sequence[Tensor]
    ) -> None:
        chosen = np.flatnonzero(symmetries < self._symmetries)[: self._slots - self._used]
        if not len(chosen):
            return
        end = self._used + len(chosen)
        for kept, new in zip(self._kept, maps, strict=True):
            kept[self._used : end] = new[torch.from_numpy(chosen)].permute(0, 2, 3, 1)
        self._slot_of[views[chosen]] = np.arange(self._used, end)
        self._used = end


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _MEMORY_BYTES


def _mapped(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A file of floats as an array; a new one is made if it is not there in this size."""
    size = _FLOAT_BYTES * math.prod(shape)
    if file.is_file() and file.stat().st_size == size:
        return np.memmap(file, np.float32, "r+", shape=shape)
    array = np.memmap(file, np.float32, "w+", shape=shape)
    if hasattr(os, "posix_fallocate"):
        # A memory map that outgrows its disk kills the process.
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    return array
