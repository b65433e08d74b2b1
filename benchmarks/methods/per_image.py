"""Features that depend on one image alone, computed once however many seeds use the image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from methods.interface import Images

Features = NDArray[np.float32]


class PerImageFeatures:
    """Remembers features by the pixels of the image.

    Args:
        compute: From (N, 3, P, P) to (N, D), each row from its image alone.
    """

    def __init__(self, compute: Callable[[Images], Features]) -> None:
        self._compute = compute
        self._known: dict[bytes, Features] = {}

    def __call__(self, images: Images) -> Features:
        """Features of images: (N, D)."""
        digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        new = [place for place, digest in enumerate(digests) if digest not in self._known]
        if new:
            for place, row in zip(new, self._compute(images[new]), strict=True):
                self._known[digests[place]] = row
        return np.stack([self._known[digest] for digest in digests])
