from __future__ import annotations

import numpy as np
import pytest

from qprd.sampling.stain import restained


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)


def test_each_channel_of_a_patch_has_one_factor_of_the_optical_density() -> None:
    patch = np.tile(np.arange(50, 178, 2, dtype=np.uint8).reshape(8, 8), (1, 3, 1, 1))
    density = -np.log(patch / 255)
    factors = -np.log(restained(patch) / 255) / density
    assert factors.std(axis=(2, 3)).max() < 0.02  # rounding
    assert factors.mean(axis=(2, 3)).std() > 0.01


def test_stains_are_as_often_fainter_as_darker_and_stay_plausible() -> None:
    gray = np.full((400, 3, 4, 4), 128, np.uint8)
    gray[:, 0, 0, 0] = np.arange(400) % 256
    gray[:, 1, 0, 0] = np.arange(400) // 256
    factors = np.log(np.log(restained(gray)[:, :, 1, 1] / 255) / np.log(128 / 255))
    assert factors.mean() == pytest.approx(0, abs=0.04)
    assert factors.mean(axis=1).std() == pytest.approx(0.2, abs=0.04)
    assert (factors[:, 0] - factors[:, 1]).std() == pytest.approx(0.1 * 2**0.5, abs=0.03)


def test_a_patch_comes_out_the_same_in_any_company() -> None:
    patches = noise(5)
    once = restained(patches)
    assert np.array_equal(restained(patches[3:4])[0], once[3])
    assert np.array_equal(restained(patches[::-1])[::-1], once)
    assert not np.array_equal(once[0], patches[0])
    # Also as a view that is not contiguous.
    assert np.array_equal(restained(np.asfortranarray(patches)), once)
