from __future__ import annotations

import pytest
import torch

from qprd.model.token_student import TokenBottleneck, TokenStudent

CHANNELS = (12, 20, 12)


@pytest.mark.parametrize("grid", [(9, 9), (10, 7)])
def test_every_map_is_rebuilt_on_its_own_grid(grid: tuple[int, int]) -> None:
    bottleneck = TokenBottleneck(CHANNELS, 16).eval()
    student = TokenStudent(bottleneck.out_channels, CHANNELS, 1).eval()
    maps = [torch.randn(2, count, *grid) for count in CHANNELS]
    embedding = bottleneck(maps)
    assert embedding.shape == (2, 16, *grid)
    assert [f.shape for f in student(embedding)] == [f.shape for f in maps]


def test_values_are_dropped_in_training_only() -> None:
    bottleneck = TokenBottleneck(CHANNELS, 16)
    maps = [torch.randn(4, count, 8, 8) for count in CHANNELS]
    assert not torch.equal(bottleneck(maps), bottleneck(maps))
    bottleneck.eval()
    assert torch.equal(bottleneck(maps), bottleneck(maps))
