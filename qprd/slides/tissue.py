"""Where a slide has tissue: Otsu on saturation and RGB at a low resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from shapely.geometry import MultiPolygon
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from qprd.slides.slide import Slide, grid_size

#: Masks of slides that do not know their resolution are made as if they had this one.
_ASSUMED_MPP = 0.5

#: A mask of at most this many pixels: larger slides get a coarser one.
_MAX_MASK_PX = 40_000_000

#: Darker than this in any channel is no tissue but ink, fill or a fold (the published "RGB min").
_DARKEST = 50

#: Glass is never as saturated as this, however noisy; tissue may be barely more.
_MIN_SATURATION_THRESHOLD = 0.05

#: What Otsu takes for background is glass only if it looks like glass: on a slide that is all
#: tissue, Otsu would part nuclei from stroma.
_GLASS_MAX_SATURATION = 0.10
_GLASS_MIN_BRIGHTNESS = 200.0

#: Range of the RGB threshold; the upper end also serves where there is no glass to be found.
_BRIGHTNESS_THRESHOLDS = (170.0, 232.0)


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one slide on a coarse grid.

    Attributes:
        mask: bool, (h, w). Pixel (r, c) covers the square [c * downsample, (c + 1) * downsample)
            x [r * downsample, (r + 1) * downsample) of the slide; the last row and column may
            reach beyond it.
        downsample: Level-0 pixels per mask pixel.
        mpp: Micrometres per level-0 pixel, None if unknown.
    """

    mask: NDArray[np.bool_]
    downsample: float
    mpp: float | None = None

    @cached_property
    def _integral(self) -> NDArray[np.int64]:
        """Sum of the mask above and left of every grid corner, (h + 1, w + 1)."""
        total = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), dtype=np.int64)
        np.cumsum(self.mask, axis=0, out=total[1:, 1:])
        np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
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

    def fraction(self, x: float, y: float, size_px: float) -> float:
        """Tissue fraction, 0..1, of one square; see `fractions`."""
        return float(self.fractions(x, y, size_px))

    @property
    def area_um2(self) -> float | None:
        """Tissue area in square micrometres, None without a resolution."""
        if self.mpp is None:
            return None
        return float(np.count_nonzero(self.mask)) * (self.downsample * self.mpp) ** 2

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
    min_area_um2: float = 20_000.0,
    max_hole_um2: float = 10_000.0,
) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: Any slide; one without a resolution is treated as if it had 0.5 um per pixel.
        mpp: Resolution of the mask.
        downsample: Level-0 pixels per mask pixel, instead of ``mpp``.
        min_area_um2: Smaller pieces are dropped.
        max_hole_um2: Smaller holes (lumina, vacuoles) are filled.

    Raises:
        QprdError: The slide is damaged.
    """
    level0_mpp = slide.mpp or _ASSUMED_MPP
    step = mpp / level0_mpp if downsample is None else downsample
    step = max(1.0, step, math.sqrt(slide.width * slide.height / _MAX_MASK_PX))
    columns, rows = grid_size(slide.width, slide.height, step)
    pixels = slide.read_downsampled(0, 0, columns, rows, step)
    px_um2 = (step * level0_mpp) ** 2
    mask = find_tissue(pixels, min_area_px=min_area_um2 / px_um2, max_hole_px=max_hole_um2 / px_um2)
    return TissueMask(mask, step, slide.mpp)


def find_tissue(
    pixels: NDArray[np.uint8], *, min_area_px: float = 0.0, max_hole_px: float = 0.0
) -> NDArray[np.bool_]:
    """Tell tissue from glass, pen and black borders.

    As in the published preprocessing (baidu-research/NCRF, ``tissue_mask.py``), tissue is where
    saturation exceeds its Otsu threshold, not all of R, G and B exceed theirs, and none is below
    50. Beyond it: thresholds come from pixels that can be glass or tissue only, and they are not
    believed where they do not part glass from something else.

    Args:
        pixels: RGB, (h, w, 3), at some 4 to 32 um per pixel.
        min_area_px: Smaller pieces are dropped.
        max_hole_px: Smaller holes are filled.

    Returns:
        bool, (h, w).
    """
    # Specks of noise on glass are gray on average, but each of them is saturated.
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), sigma=(1.0, 1.0, 0.0))
    # The unsmoothed image, too: the rim of a black border blends into the tissue's brightness.
    dark = (smooth.min(axis=2) <= _DARKEST) | (pixels.max(axis=2) <= _DARKEST)
    usable = ~(dark | find_pen(smooth))
    if not usable.any():
        return np.zeros(usable.shape, dtype=np.bool_)
    saturation = rgb2hsv(smooth / 255.0)[..., 1].astype(np.float32)
    colored = saturation > _saturation_threshold(saturation[usable], smooth[usable])
    bright = np.ones(usable.shape, dtype=np.bool_)
    for channel in range(3):
        bright &= smooth[..., channel] > _brightness_threshold(smooth[..., channel][usable])
    tissue = usable & colored & ~bright
    tissue = ~drop_small(~tissue, max_hole_px) & ~dark
    return drop_small(tissue, min_area_px)


def find_pen(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Blue, green, cyan and red marker strokes, (h, w).

    Hematoxylin and eosin both absorb green most, so in H&E green is the lowest channel: where it
    clearly exceeds red there is ink. Red ink, unlike eosin, absorbs blue as much as green and
    is far more saturated; black ink falls to the darkness and saturation thresholds.
    """
    red, green, blue = (pixels[..., i] for i in range(3))
    chroma = pixels.max(axis=2) - pixels.min(axis=2)
    cold, faint_cold = (green - red > 15) & (chroma > 40), (green - red > 4) & (chroma > 12)
    warm = (red > 120) & (chroma > 0.7 * red) & (blue - green < 30)
    faint_warm = (red - green > 25) & (blue - green < 0.12 * (red - green))
    # Strokes fade towards their rims: the faint ink that touches strong ink belongs to it.
    rim = np.ones((3, 3), dtype=np.bool_)
    return _grow(cold, faint_cold | cold, rim) | _grow(warm, faint_warm | warm, rim)


def drop_small(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    """Remove the 4-connected pieces of fewer than ``min_px`` pixels."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask.copy()
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    keep[0] = False
    result: NDArray[np.bool_] = keep[labels]
    return result


def _grow(
    seeds: NDArray[np.bool_], allowed: NDArray[np.bool_], structure: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pieces of ``allowed`` that hold a stroke of seeds, plus a rim of two pixels."""
    # A marker is a millimetre wide; a lone odd pixel (dirt, a coverslip's edge) is no stroke.
    seeds = ndimage.binary_opening(seeds, structure)
    grown = ndimage.binary_dilation(seeds, structure, iterations=12, mask=allowed)
    result: NDArray[np.bool_] = ndimage.binary_dilation(grown, structure, iterations=2)
    return result


def _saturation_threshold(saturation: NDArray[np.float32], pixels: NDArray[np.float32]) -> float:
    threshold = _otsu(saturation)
    below = saturation <= threshold
    glass = (
        float(saturation[below].mean()) < _GLASS_MAX_SATURATION
        and float(pixels[below].mean()) > _GLASS_MIN_BRIGHTNESS
    )
    return max(threshold, _MIN_SATURATION_THRESHOLD) if glass else _MIN_SATURATION_THRESHOLD


def _brightness_threshold(values: NDArray[np.float32]) -> float:
    low, high = _BRIGHTNESS_THRESHOLDS
    threshold = _otsu(values)
    above = values[values > threshold]
    if not above.size or float(above.mean()) < _GLASS_MIN_BRIGHTNESS:
        return high
    return min(max(threshold, low), high)


def _otsu(values: NDArray[np.float32]) -> float:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]


def _edges(padded: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Horizontal pixel edges between tissue and none, from corner to corner.

    Args:
        padded: A mask with a rim of one pixel.

    Returns:
        Segments, (n, 2 ends, (x, y)), in pixels of the mask without its rim.
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
