"""Other stains of the same tissue, for training patches."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

#: Standard deviation of the logarithm of the factor that all channels share: how dark a stain is.
_SHARED = 0.2
#: Of the logarithm of each channel's own factor: which color it has.
_OWN = 0.1


def restained(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stain patches anew: multiply the optical density of each channel by a random factor.

    The factors are drawn from the pixels of a patch, so that the same patch always comes out the
    same, whatever comes before it. White stays white.

    Args:
        images: (n, 3, p, p), RGB.

    Examples:
        >>> patches = np.full((1, 3, 32, 32), 255, np.uint8)
        >>> bool((restained(patches) == patches).all())
        True
    """
    out = np.empty_like(images)
    brightness = np.arange(256) / 255
    for image, changed in zip(images, out, strict=True):
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        factors = np.exp(_SHARED * rng.normal() + _OWN * rng.normal(size=3))
        for channel, factor in enumerate(factors):
            levels = np.rint(255 * brightness**factor).astype(np.uint8)
            np.take(levels, image[channel], out=changed[channel])
    return out
