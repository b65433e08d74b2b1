"""Slides that the measurements are made on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

_TILE = 512
_GLASS = 244


def tissue(height: int, width: int) -> NDArray[np.uint8]:
    """Pink and purple texture, (h, w, 3)."""
    random = np.random.default_rng(0)
    blots = ndimage.gaussian_filter(random.standard_normal((height, width)), 3)
    share = np.clip(0.5 + 0.25 * blots / blots.std(), 0, 1)[..., None]
    pixels = share * np.array([120, 70, 150]) + (1 - share) * np.array([225, 160, 200])
    return pixels.astype(np.uint8)


def write_slide(
    path: Path, size: tuple[int, int], islands: list[tuple[int, int, int]], mpp: float
) -> None:
    """A pyramid with square islands of tissue on glass.

    Args:
        path: The file.
        size: Width and height in pixels.
        islands: x, y and edge of each in pixels.
        mpp: Micrometres per pixel.
    """
    texture = tissue(2048, 2048)
    factor = 1
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        while factor == 1 or max(size) / factor > 1024:
            width, height = (-(-edge // factor) for edge in size)
            scaled = [(x // factor, y // factor, edge // factor) for x, y, edge in islands]
            tiff.write(
                _tiles(width, height, scaled, texture[::factor, ::factor]),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=0 if factor == 1 else 1,
                resolution=(10_000 / (mpp * factor),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            factor *= 4


def _tiles(
    width: int, height: int, islands: list[tuple[int, int, int]], texture: NDArray[np.uint8]
) -> Iterator[bytes]:
    """Compressed tiles row by row; that of glass is compressed once."""
    glass = np.full((_TILE, _TILE, 3), _GLASS, np.uint8)
    plain = _jpeg(glass)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            tile = None
            for x, y, edge in islands:
                x0, y0 = max(x, left), max(y, top)
                x1, y1 = min(x + edge, left + _TILE), min(y + edge, top + _TILE)
                if x0 < x1 and y0 < y1:
                    tile = glass.copy() if tile is None else tile
                    rows, columns = np.arange(y0, y1), np.arange(x0, x1)
                    tile[y0 - top : y1 - top, x0 - left : x1 - left] = texture[
                        np.ix_(rows % len(texture), columns % len(texture))
                    ]
            yield plain if tile is None else _jpeg(tile)


def _jpeg(tile: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tile, level=88))
