from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qprd.sampling.dataset import PatchBatch, PatchDataset
from qprd.sampling.table import Patch, PatchTable
from qprd.training.batches import TrainingBatches

PATCH_PX = 4


def dataset(count: int) -> PatchDataset:
    rows = tuple(
        Patch("1", "a", 0, 0, 4.0, 1.0, "normal" if i % 2 else "tumor", "train")
        for i in range(count)
    )
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)
    return PatchDataset(PatchTable(rows), images, patch_px=PATCH_PX, augment=True)


def batches(count: int, batch_size: int, seed: int = 0) -> TrainingBatches:
    cpu = torch.device("cpu")
    return TrainingBatches(dataset(count), batch_size=batch_size, seed=seed, device=cpu)


def order(epoch: list[PatchBatch]) -> list[int]:
    return [int(i) for batch in epoch for i in batch.patches]


@given(st.integers(2, 40), st.integers(2, 9))
def test_an_epoch_is_every_patch_once_but_for_a_last_one_alone(count: int, size: int) -> None:
    loader = batches(count, size)
    epoch = list(loader.epoch(1))
    assert len(epoch) == len(loader)
    assert all(2 <= len(batch.patches) <= size for batch in epoch)
    seen = order(epoch)
    assert len(set(seen)) == len(seen) == count - (count % size == 1)


def test_a_batch_is_what_the_dataset_gives_for_its_patches_and_epoch() -> None:
    whole = dataset(10)
    for batch in batches(10, 4).epoch(3):
        expected = whole.batch(batch.patches, 3)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.target, expected.target)


def test_the_seed_chooses_the_order_and_epochs_differ() -> None:
    first, same, other = batches(30, 8), batches(30, 8), batches(30, 8, seed=1)
    one, two = order(list(first.epoch(1))), order(list(first.epoch(2)))
    assert order(list(same.epoch(1))) == one
    assert one != two
    assert order(list(other.epoch(1))) != one


def test_what_goes_wrong_while_a_batch_is_made_reaches_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = batches(10, 4)

    def fail(*_: object) -> PatchBatch:
        raise OSError("the disk is gone")

    monkeypatch.setattr(PatchDataset, "batch", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        list(loader.epoch(1))
