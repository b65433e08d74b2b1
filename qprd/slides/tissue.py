"""Tissue of a slide as a mask at a low resolution: what differs from this slide's glass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from qprd.checked import MAX_GAP_UM2, MIN_TISSUE_UM2
from qprd.slides.glass import Glass
from qprd.slides.slide import Slide, grid_size
from qprd.slides.surface import Surface, find_surface

#: Masks of slides that do not know their resolution are made as if they had this one.
_ASSUMED_MPP = 0.5

#: A mask of at most this many pixels: larger slides get a coarser one.
_MAX_MASK_PX = 40_000_000


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one slide on a coarse grid.

    Attributes:
        mask: bool, (h, w). Pixel (r, c) covers the square [c * downsample, (c + 1) * downsample)
            x [r * downsample, (r + 1) * downsample) of the slide; the last row and column may
            reach beyond it.
        downsample: Level-0 pixels per mask pixel.
        mpp: Micrometers per level-0 pixel, None if unknown.
        surface: What each pixel shows, of `Surface`, (h, w); None if nobody looked.
        glass: What glass looks like, None if hardly any was found.
    """

    mask: NDArray[np.bool_]
    downsample: float
    mpp: float | None = None
    surface: NDArray[np.uint8] | None = None
    glass: Glass | None = None

    @cached_property
    def _integral(self) -> NDArray[np.int32]:
        """Sum of the mask above and left of every grid corner, (h + 1, w + 1)."""
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), dtype=np.int32)
        np.cumsum(self.mask, axis=0, dtype=np.int32, out=total[1:, 1:])
        np.cumsum(total[1:, 1:], axis=1, dtype=np.int32, out=total[1:, 1:])
        return total

    def tissue_above_left(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Tissue in the rectangle from (0, 0) to (x, y), in mask pixels; x and y broadcast.

        Exact for any real position: the sum of a mask of squares is bilinear between corners.
        """
        height, width = self.mask.shape
        column = np.clip(np.asarray(x, dtype=np.float64) / self.downsample, 0, width)
        row = np.clip(np.asarray(y, dtype=np.float64) / self.downsample, 0, height)
        c0 = np.minimum(column.astype(np.intp), width - 1)
        r0 = np.minimum(row.astype(np.intp), height - 1)
        u, v = column - c0, row - r0
        total = self._integral
        upper = (1 - u) * total[r0, c0] + u * total[r0, c0 + 1]
        lower = (1 - u) * total[r0 + 1, c0] + u * total[r0 + 1, c0 + 1]
        result: NDArray[np.float64] = (1 - v) * upper + v * lower
        return result

    def fractions(self, x: ArrayLike, y: ArrayLike, size_px: float) -> NDArray[np.float64]:
        """Tissue fraction, 0..1, of squares of ``size_px`` level-0 pixels with top left (x, y).

        What lies outside the slide is not tissue. x and y broadcast against each other.
        """
        left, top = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        right, bottom = left + size_px, top + size_px
        tissue = (
            self.tissue_above_left(right, bottom)
            - self.tissue_above_left(left, bottom)
            - self.tissue_above_left(right, top)
            + self.tissue_above_left(left, top)
        )
        result: NDArray[np.float64] = np.clip(tissue * (self.downsample / size_px) ** 2, 0.0, 1.0)
        return result

    def to_polygons(self) -> MultiPolygon:
        """The tissue as valid polygons with holes along pixel edges, in level-0 pixels."""
        padded = np.pad(self.mask, 1)
        across = _edges(padded)
        down = _edges(padded.T)[..., ::-1]
        faces = shapely.get_parts(
            shapely.polygonize(list(shapely.linestrings(np.concatenate([across, down]))))
        )
        # The faces are tissue and holes; one point of each tells which.
        points = shapely.get_coordinates(shapely.point_on_surface(faces))
        column, row = np.floor(points).astype(np.intp).T
        tissue = faces[self.mask[row, column]]
        return MultiPolygon(list(shapely.transform(tissue, lambda xy: xy * self.downsample)))


def tissue_mask(
    slide: Slide,
    *,
    mpp: float = 8.0,
    downsample: float | None = None,
    min_area_um2: float = MIN_TISSUE_UM2,
    max_gap_um2: float = MAX_GAP_UM2,
    drawn: BaseGeometry | None = None,
) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: Any slide; one without a resolution is treated as if it had 0.5 um per pixel.
        mpp: Resolution of the mask.
        downsample: Level-0 pixels per mask pixel, instead of ``mpp``.
        min_area_um2: Smaller pieces are dropped.
        max_gap_um2: Smaller gaps (lumina, vessels, fat cells) are filled.
        drawn: What a person drew as tissue, valid, in level-0 pixels: this is the tissue, whatever
            its color.
    """
    level0_mpp = slide.mpp or _ASSUMED_MPP
    step = mpp / level0_mpp if downsample is None else downsample
    step = max(1.0, step, math.sqrt(slide.width * slide.height / _MAX_MASK_PX))
    columns, rows = grid_size(slide.width, slide.height, step)
    pixels = slide.read_downsampled(0, 0, columns, rows, step)
    px_um2 = (step * level0_mpp) ** 2
    surface, glass = find_surface(
        pixels, min_area_px=min_area_um2 / px_um2, max_gap_px=max_gap_um2 / px_um2
    )
    if drawn is not None:
        surface[np.isin(surface, (Surface.TISSUE, Surface.SMALL))] = Surface.OUTSIDE
        surface[pixels_inside(drawn, surface.shape, step)] = Surface.TISSUE
    # A pixel most of which lies beyond the slide is none of it.
    surface[round(slide.height / step) :] = Surface.GLASS
    surface[:, round(slide.width / step) :] = Surface.GLASS
    return TissueMask(surface == Surface.TISSUE, step, slide.mpp, surface, glass)


def pixels_inside(
    region: BaseGeometry, shape: tuple[int, ...], downsample: float
) -> NDArray[np.bool_]:
    """Whether the center of each pixel of a mask lies in a valid region, in level-0 pixels."""
    inside = np.zeros(shape, dtype=np.bool_)
    y, x = ((np.arange(count) + 0.5) * downsample for count in shape)
    for part in shapely.get_parts(region):
        shapely.prepare(part)
        left, top, right, bottom = part.bounds
        columns = slice(*np.searchsorted(x, (left, right)))
        # Row by row, as an outline may have many corners and the mask many pixels.
        for row in range(*np.searchsorted(y, (top, bottom))):
            inside[row, columns] |= shapely.contains_xy(part, x[columns], y[row])
    return inside


def _edges(padded: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Horizontal pixel edges between tissue and none, from corner to corner.

    Returns:
        Segments, (n, 2 ends, (x, y)), in pixels of the mask without the padding.
    """
    boundary = padded[1:, 1:-1] != padded[:-1, 1:-1]
    side = padded[:, 1:] != padded[:, :-1]
    corner = side[1:] | side[:-1]
    starts, ends = boundary.copy(), boundary.copy()
    starts[:, 1:] &= ~boundary[:, :-1] | corner[:, 1:-1]
    ends[:, :-1] &= ~boundary[:, 1:] | corner[:, 1:-1]
    row, first = np.nonzero(starts)
    last = np.nonzero(ends)[1] + 1
    return np.stack([np.stack([first, row], -1), np.stack([last, row], -1)], axis=1).astype(float)
