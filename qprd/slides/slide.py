"""Pixels of one slide, in QuPath's frame and at any resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from qprd.checked import MPP_RANGE
from qprd.errors import QprdError
from qprd.slides.frame import Rotation, qupath_frame, slide_bounds
from qprd.slides.opening import open_image_file
from qprd.slides.tile_tables import TileTable, read_tile_tables

#: A level may be coarser than asked for by this factor: 2.006 um/px serves a request for 2.
_LEVEL_TOLERANCE = 1.01

#: Edge of the largest square of level pixels held at once while resampling.
_BLOCK_PX = 2048

#: Resampling filter of all reads. Hamming is sharper than a triangle and has no negative lobes:
#: no ringing around nuclei, and white stays white. Being symmetric it keeps sub-pixel positions;
#: PIL's BOX does not at non-integer factors, since it takes whole pixels or none.
_FILTER = Image.Resampling.HAMMING
_FILTER_SUPPORT_PX = 1.0

#: Pixels this much longer than wide, or wider than long, are not taken for square.
MOST_ANISOTROPIC = 1.05

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class _Level:
    index: int
    width: int
    height: int
    downsample: float
    #: OpenSlide's own idea of `downsample`, by which it turns level-0 positions into level pixels.
    openslide_downsample: float


class Slide:
    """One opened slide; reads are thread-safe.

    All coordinates are level-0 pixels of QuPath's frame: the file cropped to OpenSlide's bounds,
    then to ``crop``, then rotated.

    Args:
        path: A file that OpenSlide reads, or a plain RGB image (PNG, JPEG, TIFF, BMP) of moderate
            size.
        mpp: Micrometers per level-0 pixel; wins over what the file says.
        default_mpp: Micrometers per level-0 pixel where neither ``mpp`` nor the file says.
        rotation: Clockwise rotation that QuPath applies, in degrees.
        crop: x, y, width, height in the unrotated frame.
        use_bounds: False shows the whole file: QuPath's OpenSlide reader with ``--no-crop``, and
            all its other readers.

    Attributes:
        frame: Position and rotation of the frame in the file.
        uncropped_size: Width and height before ``crop`` and ``rotation``, in level-0 pixels.
        mpp: Micrometers per level-0 pixel (mean of x and y), or None if unknown.

    Raises:
        QprdError: The file is missing, unreadable, not a slide, or an argument is impossible.
    """

    def __init__(
        self,
        path: Path,
        *,
        mpp: float | None = None,
        default_mpp: float | None = None,
        rotation: Rotation = 0,
        crop: tuple[int, int, int, int] | None = None,
        use_bounds: bool = True,
    ) -> None:
        for given in (mpp, default_mpp):
            if given is not None and not is_plausible_mpp(given):
                raise QprdError(
                    f"A resolution of {given:g} um per pixel is impossible.",
                    where=str(path),
                    fix="Give micrometers per pixel, such as 0.25 or 0.5.",
                )
        self.path = path
        self._handle = open_image_file(path)
        try:
            width, height = self._handle.dimensions
            properties = self._handle.properties
            bounds = (
                slide_bounds(properties, width, height) if use_bounds else (0, 0, width, height)
            )
            self.uncropped_size = bounds[2], bounds[3]
            self.frame = qupath_frame(bounds, crop, rotation)
            self.width, self.height = self.frame.width, self.frame.height
            self._levels = _levels(self._handle)
            if mpp is None:
                mpp = _file_mpp(properties)
            self.mpp = default_mpp if mpp is None else mpp
        except QprdError:
            self._handle.close()
            raise

    @property
    def vendor(self) -> str:
        """OpenSlide's word for the format; empty for plain images."""
        return str(self._handle.properties.get("openslide.vendor", ""))

    @property
    def series(self) -> str:
        """The unique name of a series of DICOM files; empty for other formats."""
        return str(self._handle.properties.get("dicom.SeriesInstanceUID", ""))

    @property
    def level_sizes(self) -> list[tuple[int, int]]:
        """Width and height of each level of the file, whatever of it is shown."""
        return [(level.width, level.height) for level in self._levels]

    @cached_property
    def tile_tables(self) -> tuple[TileTable, ...]:
        """Where a TIFF file has the bytes of its tiles; empty for other formats."""
        return read_tile_tables(self.path)

    def close(self) -> None:
        """Close the file; it cannot be read afterwards."""
        self._handle.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read_region(
        self, x: float, y: float, width_px: int, height_px: int, mpp: float | None
    ) -> NDArray[np.uint8]:
        """Read a region at a resolution.

        Args:
            x: Left edge in level-0 pixels, any real number.
            y: Top edge.
            width_px: Width of the result in its own pixels.
            height_px: Height of the result.
            mpp: Micrometers per pixel of the result; None for level 0 as it is.

        Returns:
            RGB, (height_px, width_px, 3), 0..255; white outside the frame and where the slide is
            transparent. Pixel (r, c) shows the square of edge d = mpp / slide.mpp level-0 pixels
            at (x + c * d, y + r * d).

        Raises:
            QprdError: mpp is given and the slide has none, or the file is damaged.
        """
        return self.read_downsampled(x, y, width_px, height_px, self.downsample_of(mpp))

    def require_readable(self, x: float, y: float) -> None:
        """Make sure that the pixel at a place of the frame, in level-0 pixels, can be read.

        Raises:
            QprdError: the file is damaged there.
        """
        file_x, file_y, _, _ = self.frame.to_file(int(x), int(y), 1, 1)
        self._read_level(self._levels[0], int(file_x), int(file_y), 1, 1)

    def downsample_of(self, mpp: float | None) -> float:
        """Return the level-0 pixels per pixel at ``mpp``; 1 for None.

        Raises:
            QprdError: The slide has no resolution, or mpp is not positive.
        """
        if mpp is None:
            return 1.0
        if self.mpp is None:
            raise QprdError(
                "The slide does not say how large its pixels are.",
                where=str(self.path),
                fix="Set the pixel size in QuPath, or say it with --assume-mpp, "
                "for example --assume-mpp 0.25 for a 40x scan.",
            )
        if not (math.isfinite(mpp) and mpp > 0):
            raise QprdError(f"A resolution of {mpp} um per pixel is impossible.", fix="Use --mpp.")
        return mpp / self.mpp

    def read_downsampled(
        self, x: float, y: float, width_px: int, height_px: int, downsample: float
    ) -> NDArray[np.uint8]:
        """Read a region at a downsample, of slides with or without a resolution.

        Takes the coarsest level that is still fine enough and resamples it block by block, so that
        memory is bounded by the result even for slides without a pyramid.

        Args:
            x: Left edge in level-0 pixels.
            y: Top edge.
            width_px: Width of the result.
            height_px: Height of the result.
            downsample: Level-0 pixels per pixel of the result; below 1 enlarges.
        """
        if width_px < 1 or height_px < 1 or not downsample > 0:
            raise ValueError(f"empty region: {width_px} x {height_px} px at {downsample}")
        file_x, file_y, file_width, file_height = self.frame.to_file(
            x, y, width_px * downsample, height_px * downsample
        )
        columns, rows = round(file_width / downsample), round(file_height / downsample)
        level = max(
            (lv for lv in self._levels if lv.downsample <= downsample * _LEVEL_TOLERANCE),
            key=lambda lv: lv.downsample,
            default=self._levels[0],
        )
        scale = downsample / level.downsample
        block = max(1, int(_BLOCK_PX / max(1.0, scale)))
        pixels = np.empty((rows, columns, 3), dtype=np.uint8)
        for row in range(0, rows, block):
            for column in range(0, columns, block):
                size = min(block, columns - column), min(block, rows - row)
                left = file_x / level.downsample + column * scale
                top = file_y / level.downsample + row * scale
                pixels[row : row + size[1], column : column + size[0]] = self._resample(
                    level, left, top, scale, size
                )
        return self.frame.orient(pixels)

    def thumbnail(self, max_px: int) -> tuple[NDArray[np.uint8], float]:
        """Return the whole frame with its longer side at most ``max_px`` pixels.

        Returns:
            RGB, (h, w, 3), and its downsample: level-0 pixels per thumbnail pixel, at least 1.
        """
        downsample = max(1.0, max(self.width, self.height) / max_px)
        width_px, height_px = grid_size(self.width, self.height, downsample)
        return self.read_downsampled(0, 0, width_px, height_px, downsample), downsample

    def _resample(
        self, level: _Level, left: float, top: float, scale: float, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Resample the box at (left, top), ``scale`` level pixels per pixel of the result."""
        width, height = size[0] * scale, size[1] * scale
        nearest = round(left), round(top)
        if abs(scale - 1) * max(size) < 1e-3 and math.dist(nearest, (left, top)) < 1e-3:
            return np.asarray(self._read_level(level, *nearest, *size))
        margin = math.ceil(_FILTER_SUPPORT_PX * max(1.0, scale)) + 1
        x0, y0 = math.floor(left) - margin, math.floor(top) - margin
        x1, y1 = math.ceil(left + width) + margin, math.ceil(top + height) + margin
        source = self._read_level(level, x0, y0, x1 - x0, y1 - y0)
        box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
        return np.asarray(source.resize(size, _FILTER, box=box))

    def _read_level(self, level: _Level, x: int, y: int, width: int, height: int) -> Image.Image:
        """Return RGB pixels of a level of the file, white outside the frame."""
        frame, step = self.frame, level.downsample
        x0 = max(x, 0, math.floor(frame.file_x / step))
        y0 = max(y, 0, math.floor(frame.file_y / step))
        x1 = min(x + width, level.width, math.ceil((frame.file_x + frame.file_width) / step))
        y1 = min(y + height, level.height, math.ceil((frame.file_y + frame.file_height) / step))
        canvas = Image.new("RGB", (width, height), _WHITE)
        if x0 < x1 and y0 < y1:
            location = (
                round(x0 * level.openslide_downsample),
                round(y0 * level.openslide_downsample),
            )
            try:
                region = self._handle.read_region(location, level.index, (x1 - x0, y1 - y0))
            except openslide.OpenSlideError as error:
                raise QprdError(
                    f"The slide cannot be read, it may be damaged: {error}",
                    where=str(self.path),
                    fix="Copy it again from its source, or leave it out with --exclude NAME.",
                ) from error
            canvas.paste(region, (x0 - x, y0 - y), mask=region)
        return canvas


def grid_size(width: float, height: float, cell: float) -> tuple[int, int]:
    """Return the (columns, rows) of cells that cover a rectangle, at least 1 each."""
    # A cell that only a rounding error asks for would be empty.
    return (
        max(1, math.ceil(width / cell - 1e-6)),
        max(1, math.ceil(height / cell - 1e-6)),
    )


def is_plausible_mpp(mpp: float) -> bool:
    """Whether a microscope's image can have this resolution (`MPP_RANGE`)."""
    return MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def _levels(handle: openslide.AbstractSlide) -> list[_Level]:
    width, height = handle.level_dimensions[0]
    return [
        _Level(i, w, h, _level_downsample((width, height), (w, h)), handle.level_downsamples[i])
        for i, (w, h) in enumerate(handle.level_dimensions)
    ]


def _level_downsample(full: tuple[int, int], level: tuple[int, int]) -> float:
    """Return the downsample of a level, an integer wherever its rounded size allows it.

    The ratio of the sizes alone is off by up to one level pixel at the far edge.
    """
    ratio = (full[0] / level[0] + full[1] / level[1]) / 2
    whole = max(1, round(ratio))
    if all(abs(f / whole - n) < 1 for f, n in zip(full, level, strict=True)):
        return float(whole)
    return ratio


def _file_mpp(properties: Mapping[str, str]) -> float | None:
    try:
        values = [float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
    except (KeyError, ValueError):
        return None
    if not all(map(is_plausible_mpp, values)):
        return None
    if max(values) > MOST_ANISOTROPIC * min(values):
        raise QprdError(
            f"The slide's pixels are not square ({values[0]:g} x {values[1]:g} um).",
            fix="Resample the slide to square pixels.",
        )
    return sum(values) / 2
