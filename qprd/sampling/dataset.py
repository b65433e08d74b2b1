"""Decode the patches of a table, and give batches of them as torch tensors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.sampling.region_index import RegionIndex
from qprd.sampling.regions import LabelRegions
from qprd.sampling.table import PatchTable
from qprd.slides.slide import Slide

Pixels = NDArray[np.uint8]

#: Value of y, and of a location of a mask, by label, as in the equations of the loss.
Y = {"normal": 1, "tumor": 0}
#: Value of locations of a mask that are in neither region.
IGNORE = -1
#: Pixels per location of a mask: the stride of the teacher's finest feature map.
MASK_STRIDE = 4
#: Decoded patches up to this size are kept in memory, larger ones in a file.
MAX_RAM_BYTES = 4 * 2**30
#: Number of flips and quarter turns of a square.
SYMMETRIES = 8


#: Opens the slide of an entry id.
Opener = Callable[[str], Slide]


class SlideReadError(QprdError):
    """A slide whose patches cannot be read."""

    def __init__(self, entry_id: str, error: QprdError) -> None:
        super().__init__(error.problem, where=error.where, fix=error.fix, exit_code=error.exit_code)
        self.entry_id = entry_id


@dataclass(frozen=True)
class PatchBatch:
    """Some patches of a dataset with the augmentation of an epoch.

    Attributes:
        images: uint8, (B, 3, p, p), RGB.
        target: int, (B,): 1 normal, 0 tumor. With masks int8, (B, p / 4, p / 4): 1 normal, 0
            tumor, -1 neither, at each location.
        patches: int64, (B,), indices of the patches in the dataset.
        symmetries: int64, (B,), 0..7, the symmetry applied to each, as in `symmetric`.
    """

    images: torch.Tensor
    target: torch.Tensor
    patches: NDArray[np.int64]
    symmetries: NDArray[np.int64]


class PatchDataset:
    """The decoded patches of a table with their labels.

    Args:
        table: The patches.
        images: Their pixels from `decode_all`, (n, 3, p, p) uint8.
        patch_px: Edge p of a patch.
        masks: Labels of locations from `rasterize_labels`, in place of one for each patch.
        augment: Flip and rotate by multiples of 90 degrees, chosen by seed, epoch and index.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        table: PatchTable,
        images: Pixels,
        *,
        patch_px: int,
        masks: NDArray[np.int8] | None = None,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        expected = (len(table), 3, patch_px, patch_px)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"decoded patches are {images.shape}, not uint8 {expected}")
        self.augment = augment
        self._images = images
        self._seed = seed
        self._y = torch.tensor([Y[patch.label] for patch in table.patches])
        self._masks = masks

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, patches: NDArray[np.int64], epoch: int) -> PatchBatch:
        """Return some patches (B,), by their indices, with the augmentation of an epoch."""
        symmetries = np.array([self._symmetry(int(i), epoch) for i in patches], np.int64)
        target = self._y[torch.from_numpy(patches)]
        if self._masks is not None:
            target = _turned(self._masks, patches, symmetries)
        return PatchBatch(_turned(self._images, patches, symmetries), target, patches, symmetries)

    def _symmetry(self, patch: int, epoch: int) -> int:
        if not self.augment:
            return 0
        words = np.random.SeedSequence((self._seed, epoch, patch)).generate_state(1)
        return int(words[0]) % SYMMETRIES


def symmetric(array: NDArray[Any], symmetry: int) -> NDArray[Any]:
    """Apply one of the 8 symmetries of a square to the last two axes; return a view.

    Symmetry 0 is the identity, 7 swaps the axes.
    """
    rotated = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return rotated[..., ::-1] if symmetry >= 4 else rotated


def _turned(
    arrays: NDArray[Any], chosen: NDArray[np.int64], symmetries: NDArray[np.int64]
) -> torch.Tensor:
    """Return the chosen ones of (n, ..., p, p), each with its own symmetry applied."""
    out = np.empty((len(chosen), *arrays.shape[1:]), arrays.dtype)
    for place, (index, symmetry) in enumerate(zip(chosen, symmetries, strict=True)):
        out[place] = symmetric(arrays[index], int(symmetry))
    return torch.from_numpy(out)


def decode_all(
    table: PatchTable,
    opener: Opener,
    *,
    patch_px: int,
    folder: Path,
    max_ram_bytes: int = MAX_RAM_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """Read every patch of a table once, for all epochs; one slide is open at a time.

    More than ``max_ram_bytes`` are written to ``patches.npy`` in a folder. ``progress`` is called
    with (done, all) after each patch.

    Returns:
        (n, 3, p, p) uint8 in the order of the table: an array, or a memory map of the file.

    Raises:
        SlideReadError: A slide cannot be opened, or is damaged.
        QprdError: The disk has no room for the file.
    """
    shape = (len(table), 3, patch_px, patch_px)
    size = int(np.prod(shape, dtype=np.int64))
    file = folder / "patches.npy"
    in_memory = size <= max_ram_bytes
    pixels = np.empty(shape, dtype=np.uint8) if in_memory else _new_file(file, shape, size)
    patches = table.patches
    # Band by band, so that neighbors are decoded together.
    order = sorted(
        range(len(table)), key=lambda i: (patches[i].slide, patches[i].y // 512, patches[i].x)
    )
    done = 0
    for entry_id, own in groupby(order, key=lambda i: patches[i].slide):
        try:
            with opener(entry_id) as slide:
                for i in own:
                    patch = patches[i]
                    read = slide.read_region(patch.x, patch.y, patch_px, patch_px, patch.mpp)
                    pixels[i] = read.transpose(2, 0, 1)
                    done += 1
                    if progress is not None:
                        progress(done, len(table))
        except QprdError as error:
            raise SlideReadError(entry_id, error) from error
    if in_memory:
        return pixels
    pixels.flush()  # type: ignore[attr-defined]
    return open_decoded(file)


def open_decoded(file: Path) -> Pixels:
    """Open decoded patches in a file as a memory map; what is changed in it is not written."""
    pixels: Pixels = np.load(file, mmap_mode="c", allow_pickle=False)
    return pixels


def rasterize_labels(
    table: PatchTable, regions: Callable[[str], LabelRegions | None], *, patch_px: int
) -> NDArray[np.int8]:
    """Return the label of every location of every patch, by the region its center lies in.

    ``regions`` gives the label regions of an entry id, of one slide after the other.

    Returns:
        (n, p / 4, p / 4) for patches of p pixels: 1 normal, 0 tumor, -1 neither.

    Raises:
        QprdError: ``patch_px`` is not a multiple of 4, or the regions of a slide are missing.
    """
    if patch_px % MASK_STRIDE:
        raise QprdError(
            f"A patch of {patch_px} px has no mask of locations of {MASK_STRIDE} px.",
            fix=f"Give --patch-px a multiple of {MASK_STRIDE}.",
        )
    cells, patches = patch_px // MASK_STRIDE, table.patches
    masks = np.full((len(table), cells, cells), IGNORE, dtype=np.int8)

    def kind(i: int) -> tuple[str, float]:
        return patches[i].slide, patches[i].size_px

    for (entry_id, size_px), group in groupby(sorted(range(len(table)), key=kind), key=kind):
        own, chosen = regions(entry_id), list(group)
        if own is None:
            raise QprdError(
                "There are no label regions to draw masks from.",
                where=patches[chosen[0]].name,
                fix="Annotate the slide, or train with --labels patch.",
            )
        normal, tumor = (
            RegionIndex(region, size_px) for region in (own.normal_region, own.tumor_region)
        )
        for i in chosen:
            square = (patches[i].x, patches[i].y, size_px, cells)
            masks[i][normal.rasterize(*square)] = Y["normal"]
            masks[i][tumor.rasterize(*square)] = Y["tumor"]
    return masks


def _new_file(file: Path, shape: tuple[int, ...], size: int) -> Pixels:
    free = shutil.disk_usage(file.parent).free
    # A memory map that outgrows its disk kills the process, so check before.
    if free < size + 2**20:
        raise QprdError(
            f"The decoded patches need {size / 2**20:,.0f} MiB; {free / 2**20:,.0f} MiB are free.",
            where=str(file.parent),
            fix="Free some space, or use fewer or smaller patches.",
        )
    pixels: Pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return pixels
