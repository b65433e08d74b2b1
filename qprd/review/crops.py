"""Crops of a slide around one cell, with the cell and the drawn border outlined."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry.base import BaseGeometry

#: The cell in a light line, the drawn border in another, both in a dark casing: they stand out from
#: H&E, and from each other with every kind of color blindness.
_CELL, _DRAWN, _CASING = "#7df9ff", "#ffd24d", "#10243a"
_JPEG_QUALITY = 88


def crop_jpeg(
    pixels: NDArray[np.uint8],
    *,
    left: float,
    top: float,
    downsample: float,
    cell: tuple[float, float, float, float],
    drawn: BaseGeometry,
) -> bytes:
    """Outline a cell on a crop of its slide.

    Args:
        pixels: The crop, uint8 RGB, (height, width, 3).
        left: Left edge of the crop in level-0 pixels, as are all other lengths.
        top: Top edge of the crop.
        downsample: Level-0 pixels per pixel of the crop.
        cell: x0, y0, x1, y1.
        drawn: Polygons, whose border is shown where it crosses the crop.

    Returns:
        A JPEG file.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    view = shapely.box(left, top, left + width * downsample, top + height * downsample)
    border = shapely.intersection(shapely.boundary(drawn), view)
    lines = [part for part in shapely.get_parts(border) if part.geom_type == "LineString"]
    origin = np.array([left, top])
    paths = [(shapely.get_coordinates(line) - origin) / downsample for line in lines]
    x0, y0, x1, y1 = ((np.array(cell) - np.tile(origin, 2)) / downsample).tolist()
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for path in paths:
        _line(draw, [(x, y) for x, y in path.tolist()], _DRAWN)
    _line(draw, corners, _CELL)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], color: str) -> None:
    draw.line(points, fill=_CASING, width=4, joint="curve")
    draw.line(points, fill=color, width=2, joint="curve")
