from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qprd.model.anomaly import smooth, upsampled
from qprd.scoring.fields import Field, Windows
from qprd.scoring.pooling import window_maxima, window_means

NONE = np.zeros(0, np.int64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Tensor], Field, Field, Windows]:
    """Locations at strides 4, 8, 16 of a field somewhere, its core, and windows that touch it."""
    left, top = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    width, height = (16 * draw(st.integers(1, 6)) for _ in range(2))
    random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    locations = [torch.randn(height // s, width // s, generator=random) for s in (4, 8, 16)]
    inner = [draw(st.integers(0, 7)) for _ in range(4)]
    seen = Field(left, top, left + width, top + height, NONE)
    core = Field(
        left + inner[0], top + inner[1], seen.right - inner[2], seen.bottom - inner[3], NONE
    )
    size = draw(st.integers(1, 60))
    place = st.tuples(
        st.integers(core.left - size + 1, core.right - 1),
        st.integers(core.top - size + 1, core.bottom - 1),
    )
    x, y = np.array(draw(st.lists(place, min_size=1, max_size=6)), dtype=np.int64).T
    return locations, seen, core, Windows(x, y, size)


def shares(locations: list[Tensor], seen: Field, core: Field, windows: Windows) -> list[Tensor]:
    """Pixels of the smoothed map in each window's part of the core."""
    size = (seen.bottom - seen.top, seen.right - seen.left)
    pixels = smooth(upsampled([scores[None] for scores in locations], size))[0]
    return [
        pixels[
            max(y, core.top) - seen.top : min(y + windows.size, core.bottom) - seen.top,
            max(x, core.left) - seen.left : min(x + windows.size, core.right) - seen.left,
        ]
        for x, y in zip(windows.x.tolist(), windows.y.tolist(), strict=True)
    ]


@settings(deadline=None)
@given(cases())
def test_means_and_maxima_are_those_of_the_pixels(
    case: tuple[list[Tensor], Field, Field, Windows],
) -> None:
    windows = case[3]
    parts = shares(*case)
    means = torch.stack([part.sum() / windows.size**2 for part in parts])
    torch.testing.assert_close(window_means(*case), means, rtol=1e-4, atol=1e-5)
    maxima = torch.stack([part.max() for part in parts])
    torch.testing.assert_close(window_maxima(*case), maxima, rtol=1e-5, atol=1e-5)


def test_cores_side_by_side_add_up_to_the_mean() -> None:
    random = torch.Generator().manual_seed(0)
    locations = [torch.randn(64 // s, 96 // s, generator=random) for s in (4, 8, 16)]
    seen = Field(0, 0, 96, 64, NONE)
    windows = Windows(np.array([20, 30]), np.array([5, 17]), 40)
    halves = [Field(0, 0, 48, 64, NONE), Field(48, 0, 96, 64, NONE)]
    added = sum(window_means(locations, seen, half, windows) for half in halves)
    assert isinstance(added, Tensor)
    whole = window_means(locations, seen, seen, windows)
    torch.testing.assert_close(added, whole, rtol=1e-5, atol=1e-6)
