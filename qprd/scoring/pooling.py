"""Scores of windows from the scores of a field's locations.

Up-sampling, Gaussian smoothing and the mean over a window are linear, and each works on rows and
columns separately. So the mean needs no map of pixels: with D the scores of a scale's locations,

    mean = sum over scales of  a D b',    a = 1_rows G U,    b = 1_columns G U

where 1 is the window's share of rows or columns, G the smoothing and U the up-sampling. G is its
own transpose, because it mirrors the map at the edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qprd.model.anomaly import smooth, smooth_last, upsampled
from qprd.scoring.fields import Field, Windows


def window_means(locations: Sequence[Tensor], seen: Field, core: Field, windows: Windows) -> Tensor:
    """Compute what the core of a field adds to the means of the smoothed score map over windows.

    Args:
        locations: (h, w) for each scale, from `qprd.model.network.Network.location_scores`.
        seen: The rectangle that they are scores of.
        core: The part of it that counts.
        windows: Each at least partly in the core.

    Returns:
        (k,): sums over a window's share of the core, by the area of a window.
    """
    rows, row = np.unique(windows.y, return_inverse=True)
    columns, column = np.unique(windows.x, return_inverse=True)
    size, like = windows.size, locations[0]
    down = _shares(rows, size, (seen.top, seen.bottom), (core.top, core.bottom), like)
    across = _shares(columns, size, (seen.left, seen.right), (core.left, core.right), like)
    sums = sum(
        _of_locations(down, scores.shape[0]) @ scores @ _of_locations(across, scores.shape[1]).mT
        for scores in locations
    )
    assert isinstance(sums, Tensor)
    return sums[torch.from_numpy(row).to(like.device), torch.from_numpy(column).to(like.device)]


def window_maxima(
    locations: Sequence[Tensor], seen: Field, core: Field, windows: Windows
) -> Tensor:
    """Find the largest value of the smoothed score map in each window's share of a core.

    The arguments are those of `window_means`.

    Returns:
        (k,): the maxima.
    """
    size = (seen.bottom - seen.top, seen.right - seen.left)
    pixels = smooth(upsampled([scores.unsqueeze(0) for scores in locations], size))[0]
    first_rows, first_columns = np.maximum(windows.y, core.top), np.maximum(windows.x, core.left)
    last_rows = np.minimum(windows.y + windows.size, core.bottom)
    last_columns = np.minimum(windows.x + windows.size, core.right)
    return torch.stack(
        [
            pixels[top - seen.top : bottom - seen.top, left - seen.left : right - seen.left].amax()
            for top, bottom, left, right in zip(
                first_rows.tolist(),
                last_rows.tolist(),
                first_columns.tolist(),
                last_columns.tolist(),
                strict=True,
            )
        ]
    )


def _shares(
    starts: NDArray[np.int64],
    size: int,
    seen: tuple[int, int],
    core: tuple[int, int],
    like: Tensor,
) -> Tensor:
    """Weight of each seen position in the smoothed mean of each interval: (starts, length)."""
    first = torch.from_numpy(starts).to(like.device).unsqueeze(1)
    position = torch.arange(*seen, device=like.device)
    inside = (position >= first) & (position < first + size)
    inside &= (position >= core[0]) & (position < core[1])
    return smooth_last(inside.to(like.dtype)) / size


def _of_locations(shares: Tensor, count: int) -> Tensor:
    """Weights of the locations that are up-sampled to the weighted positions: (k, count)."""
    one_each = torch.eye(count, dtype=shares.dtype, device=shares.device)
    spread = functional.interpolate(one_each.unsqueeze(0), size=shares.shape[-1], mode="linear")
    return shares @ spread[0].mT
