"""Lesions: drawn tumor on a raster, as the Camelyon16 lesion FROC counts it.

The rules are those of the challenge's evaluation script, which knows one resolution, 0.243 um/px.
Here every length is in micrometers, so that slides of any resolution are treated alike.

References:
    B. Ehteshami Bejnordi et al., "Diagnostic assessment of deep learning algorithms for detection
    of lymph node metastases in women with breast cancer", JAMA 318, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.shapes import is_finite, polygons_of

#: Edge of a raster pixel: level 5 of the challenge's slides.
RASTER_UM = 0.243 * 2**5
#: Tumor regions closer than this become one lesion: each grows by half of it.
JOINED_UM = 75.0
#: A lesion whose major axis, after growing, is shorter than this is isolated tumor cells (ITC).
ITC_UM = 275.0

_GROWTH_PX = JOINED_UM / (2 * RASTER_UM)
#: Margin around tumor, so that grown tumor never reaches the edge of its window.
_MARGIN_PX = math.ceil(_GROWTH_PX) + 1
#: A raster of 90 x 90 mm, more than fits on a slide.
_MAX_PIXELS = 2**27
#: Number of points that are looked up at once.
_CHUNK_POINTS = 2**20


@dataclass(frozen=True)
class LesionMap:
    """The lesions of one slide, numbered from 1, isolated tumor cells included.

    Attributes:
        pixel_px: Edge of a raster pixel in level-0 pixels.
        row: First raster row; raster pixel (0, 0) begins at the slide's level-0 (0, 0).
        column: First raster column.
        labels: int32 (rows, columns), 0 where there is no lesion.
        major_axis_um: (n,) major axis of the ellipse with the second moments of the grown lesion.
    """

    pixel_px: float
    row: int
    column: int
    labels: NDArray[np.int32]
    major_axis_um: NDArray[np.float64]

    @property
    def is_itc(self) -> NDArray[np.bool_]:
        """(n,) bool: isolated tumor cells, which are neither lesions nor false positives."""
        return self.major_axis_um < ITC_UM

    @property
    def lesions(self) -> NDArray[np.intp]:
        """Numbers of the lesions that count, ascending."""
        return np.flatnonzero(~self.is_itc) + 1

    def labels_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int32]:
        """Look up the lesion at points x, y (m,), in level-0 pixels of the frame of the tumor.

        Isolated tumor cells are among the lesions; 0 where there is none.
        """
        height, width = self.labels.shape
        c = np.floor(np.asarray(x, np.float64) / self.pixel_px) - self.column
        r = np.floor(np.asarray(y, np.float64) / self.pixel_px) - self.row
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        found = np.zeros(r.shape, np.int32)
        found[inside] = self.labels[r[inside].astype(np.intp), c[inside].astype(np.intp)]
        return found


def lesion_map(tumor_region: BaseGeometry, mpp: float) -> LesionMap:
    """Find the lesions of a slide from its drawn tumor.

    A raster pixel is tumor if its center is; a polygon that contains no center gets the pixel it
    lies in. Tumor grows by 75 um / 2, holes are filled, and what touches, even at a corner, is one
    lesion.

    Args:
        tumor_region: Polygons in level-0 pixels; points and lines are ignored, invalid outlines
            repaired.
        mpp: Micrometers per level-0 pixel.

    Raises:
        QprdError: The tumor is far larger than a slide.
        ValueError: A coordinate is not finite.

    Examples:
        >>> from shapely import box
        >>> found = lesion_map(box(0, 0, 1000, 1000) | box(5000, 0, 5050, 50), mpp=0.5)
        >>> found.is_itc.tolist()
        [False, True]
    """
    pixel_px = RASTER_UM / mpp
    # One raster pixel is one unit from here on.
    polygons = _polygons(shapely.transform(tumor_region, lambda points: points / pixel_px))
    left, top, right, bottom = _window(polygons)
    if (bottom - top) * (right - left) > _MAX_PIXELS:
        raise QprdError(
            f"The drawn tumor is larger than any slide at {mpp:.4g} um/px.",
            fix="Check the pixel size in QuPath's image tab and the drawn outlines.",
        )
    from skimage.measure import regionprops

    is_tumor = np.zeros((bottom - top, right - left), np.bool_)
    for polygon in polygons:
        _draw(polygon, is_tumor, left, top)
    grown = ndimage.binary_dilation(is_tumor, _disk(_GROWTH_PX))
    labels, _ = ndimage.label(ndimage.binary_fill_holes(grown), np.ones((3, 3)))
    found = regionprops(labels) if labels.size else []
    return LesionMap(
        pixel_px=pixel_px,
        row=top,
        column=left,
        labels=labels,
        major_axis_um=np.array([lesion.axis_major_length * RASTER_UM for lesion in found]),
    )


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    if not is_finite(geometry):
        raise ValueError("a coordinate is not a finite number")
    return polygons_of(shapely.union_all(shapely.make_valid(shapely.get_parts(geometry))))


def _window(polygons: Sequence[BaseGeometry]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a raster that holds all polygons when grown."""
    if not polygons:
        return 0, 0, 0, 0
    x0, y0, x1, y1 = shapely.total_bounds(polygons)
    low, high = -_MARGIN_PX, _MARGIN_PX + 1
    return math.floor(x0) + low, math.floor(y0) + low, math.floor(x1) + high, math.floor(y1) + high


def _draw(polygon: BaseGeometry, drawn: NDArray[np.bool_], left: int, top: int) -> None:
    """Mark the pixels whose centers are in a polygon, or else the pixel it lies in."""
    shapely.prepare(polygon)
    x0, y0, x1, y1 = (math.floor(side) for side in polygon.bounds)
    x = np.arange(x0, x1 + 1) + 0.5
    rows = max(1, _CHUNK_POINTS // len(x))
    is_drawn = False
    for first in range(y0, y1 + 1, rows):
        last = min(first + rows, y1 + 1)
        y = np.arange(first, last) + 0.5
        inside = shapely.contains_xy(polygon, x[None, :], y[:, None])
        drawn[first - top : last - top, x0 - left : x1 + 1 - left] |= inside
        is_drawn = is_drawn or bool(inside.any())
    if not is_drawn:
        point = polygon.representative_point()
        drawn[math.floor(point.y) - top, math.floor(point.x) - left] = True


def _disk(radius: float) -> NDArray[np.bool_]:
    """Pixels closer than ``radius`` to the center: dilation by it is a distance threshold."""
    reach = np.arange(-math.floor(radius), math.floor(radius) + 1)
    return reach[:, None] ** 2 + reach[None, :] ** 2 < radius**2
