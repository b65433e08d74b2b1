from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.slides.glass import chroma, find_glass, optical_density
from tests.helpers.stained_image import GLASS, as_image, section


@given(
    st.tuples(*[st.integers(60, 255)] * 3),
    st.floats(0.5, 1.0),
)
def test_chroma_does_not_depend_on_how_strong_the_lamp_is(
    color: tuple[int, int, int], lamp: float
) -> None:
    bright = np.array([color], dtype=np.float32)
    same = chroma(optical_density(bright * np.float32(lamp)))
    np.testing.assert_allclose(same, chroma(optical_density(bright)), atol=1e-4)


@given(st.integers(1, 255))
def test_gray_has_no_chroma(level: int) -> None:
    gray = np.full((1, 3), level, dtype=np.uint8)
    assert chroma(optical_density(gray))[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.97, 0.9), (0.93, 0.97, 1), (0.65, 0.65, 0.64)])
def test_the_color_of_glass_is_found_in_any_light(
    density: float, tint: tuple[float, float, float]
) -> None:
    pixels = as_image(section(density=density)[0] * np.array(tint))
    glass = find_glass(pixels.reshape(-1, 3))
    assert glass is not None
    np.testing.assert_allclose(glass.color, np.array(GLASS) * tint, atol=3)


def test_white_fill_is_not_taken_for_the_glass_beside_it() -> None:
    pixels = np.concatenate([section()[0].reshape(-1, 3), np.full((200_000, 3), 255, np.uint8)])
    glass = find_glass(pixels)
    assert glass is not None
    np.testing.assert_allclose(glass.color, GLASS, atol=3)


@pytest.mark.parametrize("density", [0.6, 1.0])
def test_tissue_alone_has_no_glass(density: float) -> None:
    pixels, _ = section(density=density)
    assert find_glass(pixels[90:210, 130:270].reshape(-1, 3)) is None


def test_noisier_glass_is_given_more_tolerance_but_never_much() -> None:
    rng = np.random.default_rng(0)
    tolerances = []
    for noise in (0.5, 1.5, 3.0):
        glass = find_glass(as_image(np.array(GLASS) + rng.normal(0, noise, (100_000, 3))))
        assert glass is not None
        tolerances.append(glass.tolerance)
    assert tolerances == sorted(tolerances)
    assert tolerances[0] < tolerances[-1] <= 0.02


def test_a_handful_of_pixels_is_not_enough_to_know_glass_by() -> None:
    assert find_glass(np.full((20, 3), 240, dtype=np.uint8)) is None
