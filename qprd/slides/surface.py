"""Tissue, glass, pen, border and dark matter in an overview of a slide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from qprd.slides.foreign import find_border, grow_pen, is_uniform, pen_colors
from qprd.slides.glass import WHITE, WHITE_FILL, Glass, chroma, find_glass, optical_density

#: Pixels that are classified at once, and those that the glass is estimated from.
_STRIP_PX = 1 << 20

#: Gray matter is what has less chroma than this share of its density: dust, carbon, black ink.
#: Stains have at least .3 of it, and .2 where a fold is so thick that a channel goes black.
_GRAY_RATIO = 0.10

#: Gray matter at least this dense is no glass in the shade.
_DARK_OD = 0.20

#: Chroma of a stain in units of its mean density is at most this; eosin has 1.9. What is colored
#: more, compared with the brightest glass in a square of this many pixels around it, is what
#: compression to JPEG spreads from tissue over its blocks.
_MAX_CHROMA, _NEAR_PX = 2.0, 33

#: Edge of a block of JPEG, and of the squares whose means tell how bright glass is. Where that
#: differs from clear glass by less than this optical density, it is the same light.
_BLOCK_PX, _MEAN_PX, _SAME_LAMP_OD = 8, 5, 0.012

#: What is as bright as glass is tissue only with this chroma: white fill and seams have less. What
#: is darker by this density needs no more than differs from glass: stains may add up to gray, such
#: as blue nuclei among brown. (At .015, stroma of a quarter of its usual density is tissue.)
_BRIGHT_CHROMA, _DARKER_OD = 0.015, 0.03

#: Levels of which the largest is black: nothing is seen there, in whatever color.
_BLACK = 25

#: On a slide without color, tissue is what is denser than glass by this optical density. Pale
#: stroma has little more.
_GRAY_OD = 0.05

#: A slide without glass has a dark background if a tenth of it and more has no level as high.
_DARK_LEVEL, _DARK_SHARE = 80, 0.10


class Surface(IntEnum):
    """What a pixel of an overview shows."""

    GLASS = 0
    TISSUE = 1
    #: Ink of a pen.
    PEN = 2
    #: Flat fill or black frame along the edge of the image.
    BORDER = 3
    #: Too dark or too gray for tissue: dust, edges of a coverslip, folds of foil.
    DARK = 4
    #: Has the color of tissue, in a piece too small to be scored.
    SMALL = 5
    #: Has the color of tissue, outside of what a person drew as tissue.
    OUTSIDE = 6


def find_surface(
    pixels: NDArray[np.uint8], *, min_area_px: float = 0.0, max_gap_px: float = 0.0
) -> tuple[NDArray[np.uint8], Glass | None]:
    """Tell tissue from all else by what glass looks like on this slide.

    Tissue is what has more chroma than glass has here, be it pale or strong; no threshold depends
    on what else is on the slide. A slide that shows hardly any glass is tissue throughout. On a
    slide without color, tissue is what is darker than glass.

    Args:
        pixels: RGB, (h, w, 3), at some 4 to 32 um per pixel.
        min_area_px: Smaller pieces of tissue are dropped.
        max_gap_px: Smaller gaps in tissue are filled, whatever they show.

    Returns:
        `Surface`, (h, w), and the glass, None if there is hardly any.
    """
    # A pixel of noise is colored; a few of them together are gray.
    smooth = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)))
    every = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / _STRIP_PX))
    gray = all((pixels[rows] == pixels[rows][..., :1]).all() for rows in _strips(pixels))
    glass = find_glass(smooth[::every, ::every].reshape(-1, 3), gray=gray)
    surface = _by_color(pixels, smooth, glass, gray=gray)
    if glass is not None and not gray:
        _uncolor_halos(surface, smooth, glass)
        _trim_rim(surface, pixels, glass)
    surface[find_border(pixels, glass or WHITE)] = Surface.BORDER
    if not has_dark_background(pixels, glass):
        _mark_pen(surface, pixels, smooth, glass or WHITE)
    surface[small_pieces(surface != Surface.TISSUE, max_gap_px)] = Surface.TISSUE
    surface[small_pieces(surface == Surface.TISSUE, min_area_px)] = Surface.SMALL
    _frame(surface)
    return surface, glass


def has_dark_background(pixels: NDArray[np.uint8], glass: Glass | None) -> bool:
    """Whether a slide is no stained section on bright glass: fluorescence has no such glass."""
    return glass is None and is_dark(pixels.max(axis=2))


def is_dark(levels: NDArray[np.uint8]) -> bool:
    """Whether too much of a slide is dark for bright glass, by the brightest channel, (h, w)."""
    return bool(np.count_nonzero(levels < _DARK_LEVEL) > _DARK_SHARE * levels.size)


def small_pieces(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    """The 4-connected pieces of fewer than ``min_px`` pixels."""
    labels, count = ndimage.label(mask)
    small = np.bincount(labels.ravel(), minlength=count + 1) < min_px
    small[0] = False
    result: NDArray[np.bool_] = small[labels]
    return result


def _by_color(
    pixels: NDArray[np.uint8], smooth: NDArray[np.uint8], glass: Glass | None, *, gray: bool
) -> NDArray[np.uint8]:
    """Glass, tissue and dark matter, pixel by pixel."""
    surface = np.full(pixels.shape[:2], Surface.GLASS, dtype=np.uint8)
    for rows in _strips(surface):
        density = (glass or WHITE).density(smooth[rows])
        depth, color = density.mean(axis=2), chroma(density)
        # White fill of the scanner need not have the color of glass.
        tissue = smooth[rows].min(axis=2) < WHITE_FILL
        if glass is not None and gray:
            tissue &= depth > _GRAY_OD
        elif glass is not None:
            tissue &= color > glass.tolerance
            tissue &= (depth > _DARKER_OD) | (color > _BRIGHT_CHROMA)
        surface[rows][tissue] = Surface.TISSUE
        if not gray:
            uncolored = (color < _GRAY_RATIO * depth) & (depth > _DARK_OD)
            surface[rows][uncolored] = Surface.DARK
        # Before smoothing, too: the rim of a black border blends into the brightness of tissue.
        black = (smooth[rows].max(axis=2) <= _BLACK) | (pixels[rows].max(axis=2) <= _BLACK)
        surface[rows][black] = Surface.DARK
    return surface


def _uncolor_halos(surface: NDArray[np.uint8], smooth: NDArray[np.uint8], glass: Glass) -> None:
    """Call glass what has some color, but is as bright as the glass nearby."""
    gray = np.empty(surface.shape, dtype=np.float32)
    fill = np.empty(surface.shape, dtype=np.bool_)
    for rows in _strips(surface):
        gray[rows] = smooth[rows].mean(axis=2, dtype=np.float32)
        fill[rows] = smooth[rows].min(axis=2) >= max(WHITE_FILL, *glass.color)
    light = _light_nearby(gray, surface == Surface.GLASS, fill)
    clear = optical_density(np.array(glass.color, dtype=np.float32)).mean()
    for rows in _strips(surface):
        lamp = optical_density(light[rows])
        lamp[np.abs(lamp - clear) < _SAME_LAMP_OD] = clear
        halo = (optical_density(gray[rows]) - lamp) * _MAX_CHROMA < chroma(
            glass.density(smooth[rows])
        )
        halo &= (light[rows] > 0) & (surface[rows] == Surface.TISSUE)
        surface[rows][halo] = Surface.GLASS


def _light_nearby(
    gray: NDArray[np.float32], glass: NDArray[np.bool_], fill: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Level of the brightest glass around each pixel, 0 where there is none.

    White fill of the scanner is brighter than glass, and compression spreads that, too. Glass
    counts by means of a few pixels, as the brightest of many is noise.
    """
    seen = glass & ~ndimage.maximum_filter(fill, 2 * _BLOCK_PX + 1)
    share = ndimage.uniform_filter(seen.astype(np.float32), _MEAN_PX)
    total = ndimage.uniform_filter(np.where(seen, gray, np.float32(0)), _MEAN_PX)
    mean = np.divide(total, share, out=np.zeros_like(gray), where=share > 0.5)
    light: NDArray[np.float32] = ndimage.maximum_filter(mean, _NEAR_PX)
    return light


def _trim_rim(surface: NDArray[np.uint8], pixels: NDArray[np.uint8], glass: Glass) -> None:
    """Give back to glass the pixels next to it that only smoothing has colored."""
    rim = ndimage.binary_dilation(surface == Surface.GLASS, np.ones((3, 3)))
    rim &= surface == Surface.TISSUE
    density = glass.density(pixels[rim])
    plain = (chroma(density) <= glass.tolerance) & (density.mean(axis=1) <= _DARKER_OD)
    surface[rim] = np.where(plain, Surface.GLASS, Surface.TISSUE)


def _mark_pen(
    surface: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
    smooth: NDArray[np.uint8],
    glass: Glass,
) -> None:
    certain, possible = (np.zeros(surface.shape, dtype=np.bool_) for _ in range(2))
    for rows in _strips(surface):
        certain[rows], possible[rows] = pen_colors(glass.density(smooth[rows]))
    certain &= surface != Surface.BORDER
    if certain.any():
        surface[grow_pen(certain, possible, is_uniform(pixels, certain))] = Surface.PEN


def _frame(surface: NDArray[np.uint8]) -> None:
    """Call dark matter that reaches the edge of the image its border."""
    labels, count = ndimage.label(surface == Surface.DARK)
    at_edge = np.zeros(count + 1, dtype=np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        at_edge[edge] = True
    at_edge[0] = False
    surface[at_edge[labels]] = Surface.BORDER


def _strips(image: NDArray[np.uint8]) -> Iterator[slice]:
    """Rows of at most `_STRIP_PX` pixels, so that little is held in floating point."""
    rows = max(1, _STRIP_PX // image.shape[1])
    return (slice(row, row + rows) for row in range(0, image.shape[0], rows))
