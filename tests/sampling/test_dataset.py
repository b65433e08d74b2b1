from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import MultiPolygon, box

from qprd.errors import QprdError
from qprd.sampling.build import SlideRegions, build_patch_table
from qprd.sampling.dataset import PatchBatch, PatchDataset, decode_all, rasterize_labels, symmetric
from qprd.sampling.table import Patch, PatchTable
from qprd.settings import TrainConfig
from tests.helpers.colon import OpenColon, regions


@pytest.fixture(scope="module")
def colon_table(colon_slides: list[SlideRegions]) -> PatchTable:
    return build_patch_table(
        colon_slides, TrainConfig(normal=8, tumor=4, val_patches=2, patch_px=64, mpp=1.0)
    )


def whole(dataset: PatchDataset, epoch: int = 0) -> PatchBatch:
    return dataset.batch(np.arange(len(dataset)), epoch)


def test_decoded_patches_are_the_same_in_memory_and_in_a_file(
    colon_table: PatchTable, open_colon: OpenColon, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"patch_px": 64, "folder": tmp_path}
    in_memory = decode_all(
        colon_table, open_colon, progress=lambda *done: seen.append(done), **options
    )
    assert seen == [(i, 16) for i in range(1, 17)]
    assert list(tmp_path.iterdir()) == []
    in_file = decode_all(colon_table, open_colon, max_ram_bytes=1000, **options)
    assert isinstance(in_file, np.memmap)
    np.testing.assert_array_equal(in_memory, in_file)


def test_batches_are_the_pixels_of_the_slide_and_the_label(
    colon_table: PatchTable, open_colon: OpenColon, tmp_path: Path
) -> None:
    pixels = decode_all(colon_table, open_colon, patch_px=64, folder=tmp_path)
    batch = whole(PatchDataset(colon_table, pixels, patch_px=64))
    assert batch.images.dtype == torch.uint8
    for i, patch in enumerate(colon_table.patches):
        with open_colon(patch.slide) as slide:
            expected = slide.read_region(patch.x, patch.y, 64, 64, 1.0)
        np.testing.assert_array_equal(batch.images[i].permute(1, 2, 0).numpy(), expected)
        assert batch.target[i] == (1 if patch.label == "normal" else 0)


def test_pixels_of_another_size_are_refused(colon_table: PatchTable) -> None:
    with pytest.raises(ValueError, match="decoded patches are"):
        PatchDataset(colon_table, np.zeros((16, 3, 32, 32), np.uint8), patch_px=64)


def test_a_disk_without_room_is_an_error_before_writing(
    colon_table: PatchTable, open_colon: OpenColon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(QprdError, match="MiB are free"):
        decode_all(colon_table, open_colon, patch_px=64, folder=tmp_path, max_ram_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_masks_hold_the_label_of_each_location() -> None:
    # A patch of 32 level-0 px read as 16 px: 4 x 4 locations of 8 level-0 px.
    table = PatchTable((Patch("1", "a", 100, 200, 32.0, 1.0, "tumor", "train"),))
    own = regions(MultiPolygon([box(100, 200, 116, 208)]), MultiPolygon([box(100, 216, 132, 232)]))
    mask = rasterize_labels(table, {"1": own}.get, patch_px=16)[0]
    np.testing.assert_array_equal(
        mask, [[0, 0, -1, -1], [-1, -1, -1, -1], [1, 1, 1, 1], [1, 1, 1, 1]]
    )


def test_masks_of_real_patches_agree_with_their_label(
    colon_table: PatchTable, colon_slides: list[SlideRegions]
) -> None:
    own = {s.entry_id: s.regions for s in colon_slides}
    pixels = np.zeros((16, 3, 64, 64), np.uint8)
    masks = rasterize_labels(colon_table, own.get, patch_px=64)
    dataset = PatchDataset(colon_table, pixels, patch_px=64, masks=masks)
    for patch, mask in zip(colon_table.patches, whole(dataset).target, strict=True):
        y = 1 if patch.label == "normal" else 0
        assert mask.shape == (16, 16)
        assert (mask == y).float().mean() > 0.7
        assert not (mask == 1 - y).any()


def test_masks_need_regions_and_a_multiple_of_the_stride(colon_table: PatchTable) -> None:
    with pytest.raises(QprdError, match="no label regions"):
        rasterize_labels(colon_table, lambda _: None, patch_px=64)
    with pytest.raises(QprdError, match="multiple of 4"):
        rasterize_labels(colon_table, lambda _: None, patch_px=30)


def test_augmentation_is_one_of_eight_symmetries_and_moves_the_mask_along() -> None:
    # The mask of a patch whose upper left quarter is tumor, and pixels that show the same.
    table = PatchTable(tuple(Patch("1", "a", 0, 0, 16.0, 1.0, "tumor", "train") for _ in range(64)))
    own = regions(MultiPolygon([box(0, 0, 8, 4)]))
    pixels = np.zeros((64, 3, 16, 16), dtype=np.uint8)
    pixels[:, :, :4, :8] = 255
    masks = rasterize_labels(table, {"1": own}.get, patch_px=16)
    dataset = PatchDataset(table, pixels, patch_px=16, masks=masks, augment=True, seed=3)
    batch = whole(dataset)
    for image, mask in zip(batch.images, batch.target, strict=True):
        np.testing.assert_array_equal(image[0, ::4, ::4].numpy() == 255, mask.numpy() == 0)
    assert len({image.numpy().tobytes() for image in batch.images}) == 8
    for image, symmetry in zip(batch.images.numpy(), batch.symmetries, strict=True):
        np.testing.assert_array_equal(image, symmetric(pixels[0], symmetry))
    assert torch.equal(whole(dataset).images, batch.images)
    assert not torch.equal(whole(dataset, epoch=1).images, batch.images)
    some = dataset.batch(np.array([9, 3]), 0)
    assert torch.equal(some.images, batch.images[[9, 3]])


def test_without_augmentation_decoded_pixels_are_returned_unchanged() -> None:
    table = PatchTable((Patch("1", "a", 0, 0, 16.0, 1.0, "normal", "train"),))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8)
    batch = whole(PatchDataset(table, pixels, patch_px=16))
    np.testing.assert_array_equal(batch.images.numpy(), pixels)
    assert batch.symmetries.tolist() == [0]
    batch.images[:] = 0
    assert pixels.any()
