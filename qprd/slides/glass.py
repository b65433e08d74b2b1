"""The glass of a slide: its color, and how far from it glass can be on this slide.

Glass, dust, shading of the scanner and edges of a coverslip dim all colors of light alike; stains
do not. So tissue is recognized by the *chroma* of its optical density, which is the part that
differs between the channels: it is the same wherever the lamp is weaker, and no second group of
pixels is needed to find it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Chroma that glass may have at the least and at the most, in optical density. The least is some
#: 4 of 255 levels. The most is what stroma has at a third of its usual density.
_TOLERANCES = (0.0075, 0.020)

#: The tolerance in units of the median chroma of glass. Of noise alike in all directions (a
#: Rayleigh distribution), 1 pixel in 5,000 is further off than 3.5 medians.
_TOLERANCE_MEDIANS = 3.5

#: Chroma of the lamp's own color at the most, as of old, yellowed glass.
_TINT = 0.045

#: Glass is not darker than this level, of 255: a border can be, and then takes no part in it.
_DARKEST_GLASS = 80

#: Glass is at most this much denser in the shade than the palest hundredth of the slide. Gray
#: borders are darker.
_SHADE_OD, _CLEAR_SHARE = 0.15, 0.01

#: A color is that of glass if pixels are far denser around it than a little further off: noise of
#: glass is within the radius (chroma), pale tissue spreads over several. What is rarer than that
#: in the ring up to the outer radius is counted by area.
_RADIUS, _OUTER_RADIUS, _CONTRAST = 0.006, 0.015, 2.0

#: A color is not that of glass if of what is paler by this optical density, this share and more
#: has another color.
_PALER_OD, _PALER_SHARE = 0.01, 0.2

#: Glass fills at least this share of a slide and this number of pixels.
_LEAST_SHARE, _LEAST_PX = 0.005, 50

#: Bins of the histogram of chroma.
_BIN = 0.002


@dataclass(frozen=True)
class Glass:
    """What glass looks like on one slide.

    Attributes:
        color: Red, green and blue of clear glass, 0..255.
        tolerance: Chroma of the optical density, 0.0075 to 0.02, up to which a pixel can be glass.
    """

    color: tuple[float, float, float]
    tolerance: float

    def density(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Optical density against this glass: log10(color / pixels), same shape as ``pixels``."""
        return optical_density(pixels) - optical_density(np.array(self.color, dtype=np.float32))


#: Levels of pixels that the scanner filled in, or that are overexposed.
WHITE_FILL = 254

#: Stands in for the glass of a slide that shows none.
WHITE = Glass((255.0, 255.0, 255.0), _TOLERANCES[1])


def optical_density(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """log10(255 / pixels) of each channel; a level of 0 counts as 1."""
    levels = pixels.astype(np.float32)
    np.maximum(levels, 1.0, out=levels)
    np.log10(levels, out=levels)
    result: NDArray[np.float32] = np.float32(math.log10(255)) - levels
    return result


def chroma(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much the channels of a density, (..., 3), differ: length of its part that is not gray."""
    u, v = _chroma_plane(density)
    return np.hypot(u, v)


def find_glass(pixels: NDArray[np.uint8], *, gray: bool = False) -> Glass | None:
    """Find the color of glass and its spread.

    Args:
        pixels: RGB, (n, 3), of a slide at a low resolution, smoothed.
        gray: The slide has no color, so that glass is only what is palest.

    Returns:
        None if hardly any of the slide is glass.
    """
    bright = pixels[pixels.min(axis=1) >= _DARKEST_GLASS]
    # White fill of the scanner is brighter than glass, and not of its color.
    unfilled = bright[bright.min(axis=1) < WHITE_FILL]
    least = max(_LEAST_PX, _LEAST_SHARE * len(pixels))
    for candidates in (unfilled, bright):
        if len(candidates) < least:
            continue
        if gray:
            level = float(np.quantile(candidates, 1 - _CLEAR_SHARE))
            return Glass((level, level, level), _TOLERANCES[0])
        if (glass := _palest_peak(candidates, least)) is not None:
            return glass
    return None


def _palest_peak(pixels: NDArray[np.uint8], least: float) -> Glass | None:
    """The palest of the colors that are as sharply defined as glass is."""
    density = optical_density(pixels)
    brightness = density.mean(axis=1)
    density = density[brightness <= np.quantile(brightness, _CLEAR_SHARE) + _SHADE_OD]
    u, v = _chroma_plane(density)
    edges = np.arange(-_TINT, _TINT + _BIN, _BIN)
    smooth = ndimage.gaussian_filter(np.histogram2d(u, v, bins=(edges, edges))[0], 1.0)
    peaks = (smooth == ndimage.maximum_filter(smooth, 5)) & (smooth > 0)
    found = []
    for row, column in zip(*np.nonzero(peaks), strict=True):
        distance = np.hypot(u - edges[row] - _BIN / 2, v - edges[column] - _BIN / 2)
        near = distance <= _RADIUS
        ring = np.count_nonzero(distance <= _OUTER_RADIUS) - np.count_nonzero(near)
        expected = ring / ((_OUTER_RADIUS / _RADIUS) ** 2 - 1)
        if np.count_nonzero(near) < max(least, _CONTRAST * expected):
            continue
        color = np.median(density[near], axis=0)
        # Paler than glass is nothing but glass in more light, which has the same color.
        paler = distance[density.mean(axis=1) < color.mean() - _PALER_OD] > 2 * _RADIUS
        if np.count_nonzero(paler) < max(least, _PALER_SHARE * len(paler)):
            found.append(_glass(color, density))
    return max(found, key=lambda glass: min(glass.color), default=None)


def _glass(color: NDArray[np.float32], density: NDArray[np.float32]) -> Glass:
    """Glass of a color, with the noise of the densities that are near it."""
    spread = chroma(density - color)
    # Beyond lies pale tissue as well as noise, and noise is what is asked for.
    noise = float(np.median(spread[spread <= 2 * _RADIUS]))
    tolerance = float(np.clip(_TOLERANCE_MEDIANS * noise, *_TOLERANCES))
    red, green, blue = (float(level) for level in 255 * 10.0**-color)
    return Glass((red, green, blue), tolerance)


def _chroma_plane(
    density: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates of densities in the plane that is at right angles to gray."""
    red, green, blue = (density[..., channel] for channel in range(3))
    u = (red - blue) * np.float32(math.sqrt(1 / 2))
    v = (2 * green - red - blue) * np.float32(math.sqrt(1 / 6))
    return u, v
