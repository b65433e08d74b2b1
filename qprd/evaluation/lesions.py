"""Lesions: drawn tumor on a raster, as the Camelyon16 lesion FROC counts it.

The rules are those of the challenge's evaluation script, which knows one resolution, 0.243 um/px.
Here every length is in micrometers, so that slides of any resolution are treated alike. Only the
surroundings of tumor are rasterized, never a whole slide.

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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError

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
class LesionWindow:
    """A part of the raster that holds whole lesions.

    Attributes:
        row: First raster row; raster pixel (0, 0) begins at the slide's level-0 (0, 0).
        column: First raster column.
        labels: int32 (rows, columns), 0 where there is no lesion.
    """

    row: int
    column: int
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class LesionMap:
    """The lesions of one slide, numbered from 1, isolated tumor cells included.

    Attributes:
        pixel_px: Edge of a raster pixel in level-0 pixels.
        windows: The parts of the raster with lesions; they do not overlap.
        major_axis_um: (n,) major axis of the ellipse with the second moments of the grown lesion.
        bounds: (n, 4) x0, y0, x1, y1 of each grown lesion in level-0 pixels.
    """

    pixel_px: float
    windows: tuple[LesionWindow, ...]
    major_axis_um: NDArray[np.float64]
    bounds: NDArray[np.float64]

    @property
    def is_itc(self) -> NDArray[np.bool_]:
        """(n,) bool: isolated tumor cells, which are neither lesions nor false positives."""
        return self.major_axis_um < ITC_UM

    @property
    def lesions(self) -> NDArray[np.intp]:
        """Numbers of the lesions that count, ascending."""
        return np.flatnonzero(~self.is_itc) + 1

    def labels_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int32]:
        """Look up the lesion at each point, isolated tumor cells included; 0 where there is none.

        Args:
            x: (m,) x in level-0 pixels of the frame that the tumor was drawn in.
            y: (m,) y in level-0 pixels.
        """
        columns = np.floor(np.asarray(x, np.float64) / self.pixel_px)
        rows = np.floor(np.asarray(y, np.float64) / self.pixel_px)
        found = np.zeros(rows.shape, np.int32)
        for window in self.windows:
            height, width = window.labels.shape
            r, c = rows - window.row, columns - window.column
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            found[inside] = window.labels[r[inside].astype(np.intp), c[inside].astype(np.intp)]
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
        ValueError: ``mpp`` is not positive, or a coordinate not finite.

    Examples:
        >>> from shapely import box
        >>> found = lesion_map(box(0, 0, 1000, 1000) | box(5000, 0, 5050, 50), mpp=0.5)
        >>> found.is_itc.tolist()
        [False, True]
    """
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be positive, not {mpp}")
    pixel_px = RASTER_UM / mpp
    # One raster pixel is one unit from here on.
    polygons = _polygons(shapely.transform(tumor_region, lambda points: points / pixel_px))
    windows: list[LesionWindow] = []
    axes: list[float] = []
    bounds: list[tuple[float, float, float, float]] = []
    groups = _groups(polygons)
    if sum(_area(box) for box, _ in groups) > _MAX_PIXELS:
        raise QprdError(
            f"The drawn tumor is larger than any slide at {mpp:.4g} um/px.",
            fix="Check the pixel size in QuPath's image tab and the drawn outlines.",
        )
    from skimage.measure import regionprops

    for (left, top, right, bottom), members in groups:
        drawn = np.zeros((bottom - top, right - left), np.bool_)
        for polygon in members:
            _draw(polygon, drawn, left, top)
        grown = ndimage.binary_dilation(drawn, _disk(_GROWTH_PX))
        labels, _ = ndimage.label(ndimage.binary_fill_holes(grown), np.ones((3, 3)))
        labels[labels > 0] += len(axes)
        for region in regionprops(labels):
            axes.append(region.axis_major_length * RASTER_UM)
            row0, column0, row1, column1 = region.bbox
            bounds.append((left + column0, top + row0, left + column1, top + row1))
        windows.append(LesionWindow(top, left, labels))
    return LesionMap(
        pixel_px=pixel_px,
        windows=tuple(windows),
        major_axis_um=np.array(axes, np.float64),
        bounds=np.array(bounds, np.float64).reshape(-1, 4) * pixel_px,
    )


def _polygons(geometry: BaseGeometry) -> list[shapely.Polygon]:
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise ValueError("a coordinate is not a finite number")
    joined = shapely.union_all(shapely.make_valid(shapely.get_parts(geometry)))
    # Collections may hold collections, hence twice.
    parts = shapely.get_parts(shapely.get_parts(joined))
    return [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]


_Box = tuple[int, int, int, int]


def _groups(polygons: Sequence[shapely.Polygon]) -> list[tuple[_Box, list[shapely.Polygon]]]:
    """Group polygons that may become one lesion, each group with a box that holds it when grown.

    Boxes do not even touch, so that no lesion reaches into two of them, and whatever fills a hole
    of a lesion is in the same box.
    """
    if not polygons:
        return []
    group = np.arange(len(polygons))
    bounds = shapely.bounds(np.array(polygons, dtype=object))
    boxes = np.concatenate([np.floor(bounds[:, :2]), np.floor(bounds[:, 2:]) + 1], axis=1)
    boxes += np.array([-_MARGIN_PX, -_MARGIN_PX, _MARGIN_PX, _MARGIN_PX])
    while True:
        outlines = shapely.box(*boxes.T)
        a, b = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        n = len(boxes)
        count, joined = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)))
        if count == n:
            break
        sides = zip(boxes.T, (ndimage.minimum,) * 2 + (ndimage.maximum,) * 2, strict=True)
        boxes = np.column_stack([of(side, joined, np.arange(count)) for side, of in sides])
        group = joined[group]
    members: list[list[shapely.Polygon]] = [[] for _ in boxes]
    for polygon, number in zip(polygons, group.tolist(), strict=True):
        members[number].append(polygon)
    # From top to bottom, so that the numbers of lesions do not depend on the order of drawing.
    order = np.lexsort((boxes[:, 0], boxes[:, 1]))
    left, top, right, bottom = boxes.astype(int).T.tolist()
    return [((left[i], top[i], right[i], bottom[i]), members[i]) for i in order.tolist()]


def _area(box: _Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _draw(polygon: shapely.Polygon, drawn: NDArray[np.bool_], left: int, top: int) -> None:
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
