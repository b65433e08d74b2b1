"""Images without a pyramid, of the kinds that OpenSlide does not open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

WIDTH, HEIGHT = 613, 547


def pixels() -> NDArray[np.uint8]:
    """Noise, so that a shift of one pixel shows."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def plain_image(folder: Path, kind: str) -> Path:
    """Write `pixels` as ``png``, ``jpg``, ``bmp``, ``tif`` (in strips), ``lzw`` (such a TIFF,
    compressed), or with an orientation tag as ``turned jpg`` or ``turned tif``.
    """
    suffix = {"lzw": "tif"}.get(kind, kind.removeprefix("turned "))
    path = folder / f"image.{suffix}"
    image = Image.fromarray(pixels())
    exif = Image.Exif()
    if kind == "turned jpg":
        exif[ExifTags.Base.Orientation] = 6
    if suffix != "tif":
        image.save(path, exif=exif)
    else:
        turned = [(ExifTags.Base.Orientation, "H", 1, 6, True)] if kind == "turned tif" else []
        tifffile.imwrite(
            path,
            pixels(),
            photometric="rgb",
            rowsperstrip=16,
            metadata=None,
            compression="lzw" if kind == "lzw" else None,
            extratags=turned,
        )
    return path
