"""Deep Zoom tiles of slides in QuPath's frame, from a bounded number of open slides.

A level holds the slide at half the size of the next one; the last is level 0 of the slide itself
(the numbering of Deep Zoom is the reverse of OpenSlide's). Tiles do not overlap.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qprd.slides.slide import Slide, grid_size

#: Edge of a tile in pixels.
TILE_PX = 256
#: Longer edge of a thumbnail in pixels.
THUMBNAIL_PX = 128
_JPEG_QUALITY = 85
#: Slides that stay open, and tiles that are read at once: each takes up to 20 MB.
_MAX_OPEN = 8
_MAX_READS = 8


def last_level(width: int, height: int) -> int:
    """The level of full size."""
    return (max(width, height) - 1).bit_length()


def read_tile(slide: Slide, level: int, column: int, row: int) -> NDArray[np.uint8] | None:
    """Read a tile: RGB, (height, width, 3), at most `TILE_PX` on a side.

    Levels go from 0 to `last_level`, which has the size of the slide, columns and rows from 0.

    Returns:
        The pixels; None if there is no such tile.

    Raises:
        QprdError: The slide is damaged.
    """
    last = last_level(slide.width, slide.height)
    if not 0 <= level <= last:
        return None
    downsample = float(2 ** (last - level))
    width, height = grid_size(slide.width, slide.height, downsample)
    left, top = column * TILE_PX, row * TILE_PX
    if not (0 <= left < width and 0 <= top < height):
        return None
    size = min(TILE_PX, width - left), min(TILE_PX, height - top)
    return slide.read_downsampled(left * downsample, top * downsample, *size, downsample)


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGBA pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


class OpenSlides:
    """Slides by key, opened when they are needed; those not used for longest are closed."""

    def __init__(self, limit: int = _MAX_OPEN) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._reads = threading.BoundedSemaphore(_MAX_READS)
        self._slides: OrderedDict[object, Slide] = OrderedDict()
        self._users: dict[object, int] = {}

    @contextmanager
    def use(self, key: object, open_slide: Callable[[], Slide]) -> Iterator[Slide]:
        """Lend the slide of a key for the length of the block, in which it is not closed."""
        with self._reads:
            with self._lock:
                if key not in self._slides:
                    self._slides[key] = open_slide()
                slide = self._slides[key]
                self._slides.move_to_end(key)
                self._users[key] = self._users.get(key, 0) + 1
            try:
                yield slide
            finally:
                with self._lock:
                    self._users[key] -= 1
                    self._close_idle(self._limit)

    def close(self) -> None:
        """Close all slides that nobody uses."""
        with self._lock:
            self._close_idle(0)

    def _close_idle(self, limit: int) -> None:
        for key in [key for key in self._slides if not self._users[key]]:
            if len(self._slides) <= limit:
                return
            self._slides.pop(key).close()
            del self._users[key]
