"""Shuffled batches for a training, made and moved to the device ahead of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from qprd.sampling.dataset import PatchBatch, PatchDataset
from qprd.slides.read_ahead import read_ahead


class TrainingBatches:
    """The batches of each epoch, in an order that the seed chooses.

    A thread makes the next batches while the network works on one; for a CUDA device they are
    copied from pinned memory, which goes on beside the computation.

    Args:
        dataset: At least two patches.
        batch_size: Patches a batch. A last batch of a single patch is left out: batch
            normalization has no variance of it.
        seed: Of the order.
        device: Where the tensors go.
        part: Number of this process and of all processes: each batch is dealt out to them. A part
            may be empty.

    Attributes:
        generator: Of the order.
        waited_s: Seconds for which whoever iterates had to wait for batches.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.waited_s = 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self._dataset = dataset
        self._device = device
        self._part = slice(part[0], None, part[1])
        self._order: DataLoader[int] = DataLoader(
            range(len(dataset)),  # type: ignore[arg-type]
            batch_size=batch_size,
            shuffle=True,
            drop_last=len(dataset) % batch_size == 1,
            generator=self.generator,
            collate_fn=lambda chosen: np.array(chosen, np.int64),
        )

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return len(self._order)

    def epoch(self, number: int) -> Iterator[PatchBatch]:
        """Yield the batches of one epoch, with the epoch's view of each patch."""

        def make(chosen: NDArray[np.int64]) -> PatchBatch:
            return self._on_device(self._dataset.batch(chosen[self._part], number))

        batches = read_ahead(make, self._order)
        while True:
            started = time.perf_counter()
            following = next(batches, None)
            self.waited_s += time.perf_counter() - started
            if following is None:
                return
            yield following[1]

    def _on_device(self, batch: PatchBatch) -> PatchBatch:
        images, target = batch.images, batch.target
        if self._device.type == "cuda":
            images, target = images.pin_memory(), target.pin_memory()
        return PatchBatch(
            images.to(self._device, non_blocking=True),
            target.to(self._device, non_blocking=True),
            batch.patches,
            batch.symmetries,
        )
