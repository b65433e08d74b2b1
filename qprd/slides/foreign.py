"""Pen and flat borders: what has a color on a slide and is no tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qprd.slides.glass import Glass, chroma

#: Ink is denser in red than in green (blue, green, turquoise), by this factor and this optical
#: density, or denser in blue than any stain is (yellow, orange). Hematoxylin and eosin absorb
#: green most; so does DAB but for blue, of which it absorbs up to 1.6 times as much.
_COLD_RATIO, _COLD_OD = 1.15, 0.05
_YELLOW_RATIO, _YELLOW_OD = 1.8, 0.15

#: Red ink absorbs blue nearly as eosin absorbs green, and is denser than blood is.
_RED_RATIO, _RED_OD, _RED_MAX_OD = 0.75, 0.70, 0.2

#: The faint rim of a stroke, next to where it is strong.
_FAINT_COLD_OD = 0.01
_FAINT_YELLOW_RATIO, _FAINT_YELLOW_OD = 1.7, 0.03

#: Ink is smooth where tissue has nuclei: standard deviation of gray levels within 3 x 3 pixels,
#: relative to what the light lost there. Ink has .02, sections .07 and more.
_UNIFORM = 0.08

#: Pixels of a stroke's width at the least, and how far its rim reaches.
_STROKE_PX, _RIM_PX, _BLUR_PX = 5, 12, 2

#: A border is flat: within 3 x 3 pixels all levels of a channel are as near.
_FLAT_LEVELS = 2

#: Levels from the color of the border that compression may add near what it frames, and pixels.
_RINGING_LEVELS, _RINGING_PX = 20, 16

#: Share of a side of the image that is border if there is one.
_WHOLE_SIDE = 0.95

_SQUARE = np.ones((3, 3), dtype=np.bool_)


def pen_colors(density: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Colors that no stain has, by optical density against the slide's glass, (h, w, 3).

    Returns:
        Where ink is certain and where it is possible, each (h, w).
    """
    red, green, blue = (density[..., channel] for channel in range(3))
    cold = (red > _COLD_RATIO * green) & (red - green > _COLD_OD)
    yellow = (blue > _YELLOW_RATIO * green) & (blue - green > _YELLOW_OD)
    dense_red = (green > _RED_OD) & (blue > _RED_RATIO * green) & (red < _RED_MAX_OD)
    faint_cold = red - green > _FAINT_COLD_OD
    faint_yellow = (blue > _FAINT_YELLOW_RATIO * green) & (blue - green > _FAINT_YELLOW_OD)
    faint_red = (blue > _RED_RATIO * green) & (green > 2 * red)
    certain = cold | yellow | dense_red
    return certain, certain | faint_cold | faint_yellow | faint_red


def is_uniform(pixels: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a pixel is much like its neighbors, as ink is; False outside ``where``'s bounds."""
    uniform = np.zeros(where.shape, dtype=np.bool_)
    bounds = _bounds(where, 2)
    gray = 255.0 - pixels[bounds].mean(axis=2, dtype=np.float32)
    mean = ndimage.uniform_filter(gray, 3)
    variance = ndimage.uniform_filter(gray * gray, 3) - mean * mean
    uniform[bounds] = variance <= (_UNIFORM * mean) ** 2
    return uniform


def grow_pen(
    seeds: NDArray[np.bool_], faint: NDArray[np.bool_], uniform: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Strokes of a pen with their rims.

    Returns:
        The pieces of ``faint``, where ink is possible, that hold a stroke of ``seeds``, where it is
        certain, most of it ``uniform`` (smooth); plus a rim.
    """
    pen = np.zeros(seeds.shape, dtype=np.bool_)
    bounds = _bounds(seeds, _RIM_PX + _BLUR_PX)
    # A marker is a millimeter wide; a lone odd pixel is no stroke.
    strokes = ndimage.binary_opening(seeds[bounds], np.ones((_STROKE_PX, _STROKE_PX)))
    labels, count = ndimage.label(strokes, _SQUARE)
    if count == 0:
        return pen
    smooth = ndimage.mean(uniform[bounds], labels, np.arange(count + 1)) > 0.5
    smooth[0] = False
    grown = ndimage.binary_dilation(smooth[labels], _SQUARE, iterations=_RIM_PX, mask=faint[bounds])
    pen[bounds] = ndimage.binary_dilation(grown, _SQUARE, iterations=_BLUR_PX)
    return pen


def find_border(pixels: NDArray[np.uint8], glass: Glass) -> NDArray[np.bool_]:
    """Flat fill along a whole side of the image, in any color but that of glass, (h, w)."""
    border = np.zeros(pixels.shape[:2], dtype=np.bool_)
    for side in (np.s_[:1, :], np.s_[-1:, :], np.s_[:, :1], np.s_[:, -1:]):
        color = np.median(pixels[side], axis=(0, 1)).astype(np.uint8)
        density = glass.density(color)
        if border[side].all() or max(chroma(density), density.mean()) < glass.tolerance / 2:
            continue
        if _near(pixels[side], color).mean() >= _WHOLE_SIDE:
            border |= _fill_from(pixels, side, color)
    return np.zeros_like(border) if border.all() else border


def _fill_from(
    pixels: NDArray[np.uint8], side: tuple[slice, slice], color: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Flat pixels of a color that are connected with a side, and their rim."""
    near = _near(pixels, color)
    size = (3, 3, 1)
    spread = ndimage.maximum_filter(pixels, size) - ndimage.minimum_filter(pixels, size)
    flat = near & (spread.max(axis=2) <= _FLAT_LEVELS)
    start = np.zeros_like(flat)
    start[side] = flat[side]
    filled = ndimage.binary_propagation(start, mask=flat)
    rim: NDArray[np.bool_] = ndimage.binary_dilation(
        filled, _SQUARE, iterations=_RINGING_PX, mask=near
    )
    return rim


def _near(pixels: NDArray[np.uint8], color: NDArray[np.uint8]) -> NDArray[np.bool_]:
    difference = np.abs(pixels.astype(np.int16) - color.astype(np.int16)).max(axis=-1)
    near: NDArray[np.bool_] = difference <= _RINGING_LEVELS
    return near


def _bounds(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """The rectangle around what is True, and a margin."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )
