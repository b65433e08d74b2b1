"""A slide that is tissue all over: what borders of any kind would show on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def textured(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Hematoxylin and eosin in blots of 3 to 60 px that vary over the slide, (h, w, 3)."""
    random = np.random.default_rng(seed)
    density = np.zeros((2, height, width))
    for stain in range(2):
        for blot_px in (1.5, 6.0, 30.0):
            noise = ndimage.gaussian_filter(random.standard_normal((height, width)), blot_px)
            density[stain] += noise / noise.std()
    strength = np.clip(0.45 + 0.2 * density, 0.05, 1.5)
    absorbed = np.tensordot(strength, [[0.65, 0.70, 0.29], [0.10, 0.80, 0.25]], axes=(0, 0))
    return np.clip(245 * np.exp(-absorbed), 0, 255).astype(np.uint8)
