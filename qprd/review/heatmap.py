"""Heatmap of a slide: its scores in colors over the slide in gray, with contours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from qprd.predictions import ScoreMap
from qprd.results.contours import ProbabilityOf
from qprd.scoring.unscored import Unscored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

#: Magma is perceptually uniform, and readable with every kind of color blindness and in gray.
COLORMAP = "magma"
OPACITY = 0.72
#: A light line in a dark casing stands out from H&E and from every color of magma.
LINE, CASING = "#7df9ff", "#10243a"
#: Of what was not scored; the pixels of a mask that are hatched at most along an edge.
HATCH_COLOR = "#b3005e"
_HATCH, _HATCHED_PX = "//////", 800


def draw_heatmap(
    axes: Axes,
    thumbnail: NDArray[np.uint8],
    downsample: float,
    score_map: ScoreMap,
    contours: Sequence[Polygon],
    *,
    threshold: float | None = None,
    probability_of: ProbabilityOf | None = None,
    raw_range: tuple[float, float] | None = None,
    unscored: Unscored | None = None,
) -> AxesImage:
    """Draw scores in colors over the slide in gray, and contours, in level-0 pixels.

    Args:
        axes: Axes to draw on; their aspect ratio is kept.
        thumbnail: uint8, (height, width, 3), the whole slide in the QuPath frame.
        downsample: Level-0 pixels per thumbnail pixel.
        score_map: The scores; cells without a score are transparent.
        contours: Level-0 pixels of the QuPath frame.
        threshold: Raw score that the range of the colors is widened to hold.
        probability_of: Turns raw scores into probabilities, which are shown instead.
        raw_range: Lowest and highest raw score of the colors; None takes those of the slide.
        unscored: Hatched, with a legend, if it is much.

    Returns:
        The image of the scores, from which a color bar can be made.
    """
    height, width = thumbnail.shape[:2]
    level0 = (0.0, width * downsample, height * downsample, 0.0)
    axes.imshow(_gray(thumbnail), extent=level0, interpolation="antialiased", aspect="auto")
    low, high = 0.0, 1.0
    if probability_of is None:
        low, high = _raw_range(score_map.scores, threshold, raw_range)
    values = score_map.scores if probability_of is None else probability_of(score_map.scores)
    rows, columns = score_map.scores.shape
    drawn = axes.imshow(
        np.ma.masked_invalid(values),
        extent=(
            score_map.x,
            score_map.x + columns * score_map.cell_px,
            score_map.y + rows * score_map.cell_px,
            score_map.y,
        ),
        cmap=COLORMAP,
        vmin=low,
        vmax=high,
        alpha=OPACITY,
        interpolation="nearest",
        aspect="auto",
    )
    if unscored is not None and unscored.is_much:
        _hatch(axes, unscored)
    draw_contours(axes, contours)
    axes.set(xlim=level0[:2], ylim=level0[2:])
    return drawn


def draw_contours(axes: Axes, contours: Sequence[Polygon]) -> None:
    """Draw the outlines of contours and of their holes on axes in level-0 pixels."""
    from matplotlib.collections import LineCollection

    rings = [
        np.asarray(ring.coords)[:, :2]
        for polygon in contours
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    for color, width in ((CASING, 2.2), (LINE, 1.1)):
        axes.add_collection(
            LineCollection(rings, colors=color, linewidths=width, capstyle="round"),
            autolim=False,
        )


def _hatch(axes: Axes, unscored: Unscored) -> None:
    from matplotlib.patches import Patch

    every = math.ceil(max(unscored.mask.shape) / _HATCHED_PX)
    # A rim of zeros closes the outlines at the edge of the slide.
    mask = np.pad(unscored.mask[::every, ::every], 1).astype(np.uint8)
    y, x = ((np.arange(count) - 0.5) * unscored.downsample * every for count in mask.shape)
    hatched = axes.contourf(x, y, mask, levels=[0.5, 1.5], colors="none", hatches=[_HATCH])
    hatched.set_edgecolor(HATCH_COLOR)
    hatched.set_linewidth(0)
    area_mm2 = sum(area for cause, area in unscored.areas_mm2.items() if cause != "border")
    key = Patch(
        fc="none", ec=HATCH_COLOR, lw=0.5, hatch=_HATCH, label=f"not scored: {area_mm2:.2g} mm²"
    )
    axes.legend(handles=[key], loc="lower left", fontsize=8, framealpha=0.85, edgecolor="none")


def _gray(thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma (ITU-R BT.601) of the thumbnail, lightened."""
    luma = 96 + (thumbnail @ np.array([0.299, 0.587, 0.114])) * (1 - 96 / 255)
    return np.repeat(luma.astype(np.uint8)[..., None], 3, axis=2)


def _raw_range(
    scores: NDArray[np.float32], threshold: float | None, given: tuple[float, float] | None
) -> tuple[float, float]:
    """Lowest and highest score of the colors, never equal."""
    if given is None:
        finite = scores[np.isfinite(scores)]
        given = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    marked = [] if threshold is None else [threshold]
    low, high = min(*given, *marked), max(*given, *marked)
    least = 1e-3 * max(abs(low), abs(high), 1.0)
    return (low, high) if high - low >= least else (low - least, high + least)
