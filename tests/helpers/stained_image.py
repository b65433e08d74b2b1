"""Small images of stained tissue on glass, with what is where in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

GLASS = (241, 240, 242)


def section(seed: int = 0, *, density: float = 1.0) -> tuple[Image, Mask]:
    """A round pink and purple section on noisy glass, and its mask.

    Args:
        seed: Of the nuclei and the noise.
        density: Optical density of the stains, 1 for an ordinary section.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:300, 0:400]
    inside = np.hypot(x - 200, y - 150) < 100
    nuclei = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 2) > 0.08
    glass = np.array(GLASS, dtype=float)
    light = np.ones((*inside.shape, 3))
    light[inside] = np.array((228, 165, 200)) / glass
    light[inside & nuclei] = np.array((125, 80, 155)) / glass
    return as_image(glass * light**density + rng.normal(0, 4, light.shape)), inside


def as_image(values: NDArray[np.floating]) -> Image:
    """Rounded to 0..255."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())
