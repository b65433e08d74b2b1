from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from qprd.model.anomaly import upsampled
from qprd.model.head import StandardizedHead

CHANNELS = (3, 4, 5)
EDGES = (16, 8, 4)


def random_maps(seed: int, n: int = 6, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn((n, channels, edge, edge), generator=generator) + channels
        for channels, edge in zip(CHANNELS, EDGES, strict=True)
    ]


def differences(teacher: list[torch.Tensor], student: list[torch.Tensor]) -> torch.Tensor:
    """Mean over the locations of each scale: (scales, N)."""
    return torch.stack(
        [
            (1 - functional.cosine_similarity(f, g, dim=1)).mean((1, 2))
            for f, g in zip(teacher, student, strict=True)
        ]
    )


def test_standardized_maps_have_mean_0_and_deviation_1_over_all_batches() -> None:
    batches = [random_maps(seed, n=3, scale=5) for seed in range(4)]
    head = StandardizedHead(CHANNELS)
    head.fit_standardization(batches)
    for scale in range(3):
        together = torch.cat([head.standardize(maps)[scale] for maps in batches])
        assert torch.allclose(together.mean((0, 2, 3)), torch.zeros(CHANNELS[scale]), atol=1e-4)
        deviation = together.std((0, 2, 3), unbiased=False)
        assert torch.allclose(deviation, torch.ones(CHANNELS[scale]), atol=1e-4)


def test_a_constant_channel_is_not_blown_up() -> None:
    maps = random_maps(0)
    maps[0][:, 1] = 2.5
    head = StandardizedHead(CHANNELS)
    head.fit_standardization([maps])
    assert torch.isfinite(head.standardize(maps)[0]).all()
    assert head.standardize(maps)[0][:, 1].abs().max() < 1e-3


def test_there_must_be_something_to_standardize_over() -> None:
    with pytest.raises(ValueError, match="no maps"):
        StandardizedHead(CHANNELS).fit_standardization([])


def test_a_new_head_is_the_plain_difference() -> None:
    teacher, student = random_maps(1), random_maps(2)
    found = upsampled(StandardizedHead(CHANNELS).location_scores(teacher, student), (64, 64))
    assert found.shape == (6, 64, 64)
    assert torch.allclose(found.mean((1, 2)), differences(teacher, student).sum(0), atol=1e-5)


@given(seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_head_of_an_earlier_bundle_adds_a_classifier_to_the_difference(seed: int) -> None:
    head = StandardizedHead(CHANNELS)
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(b.shape, generator=generator) for name, b in head.named_buffers()}
    head.load_state_dict(state)
    teacher, student = random_maps(seed), random_maps(seed + 100)
    found = torch.stack([s.mean((1, 2)) for s in head.location_scores(teacher, student)]).sum(0)
    expected = state["difference"] @ differences(teacher, student) + state["bias"]
    for scale, f in enumerate(teacher, start=1):
        expected += f.mean((2, 3)) @ state[f"linear_{scale}"]
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3)
