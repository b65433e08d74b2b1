"""Overview of a slide: one picture with the H&E and contours beside the heatmap of the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from qprd.names import counted
from qprd.predictions import ScoreMap
from qprd.results.contours import ProbabilityOf
from qprd.review.figures import FRAME, INK, QUIET, new_figure
from qprd.review.heatmap import CASING, COLORMAP, LINE, OPACITY, draw_contours, draw_heatmap
from qprd.scoring.unscored import Unscored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Points.
_FACTS_SIZE = 8.5
#: Inches.
_MARGIN, _GAP, _HEADER, _LABEL, _BAR_WIDTH, _BAR_LABELS = 0.2, 0.2, 0.66, 0.26, 0.16, 0.78
_LINE_HEIGHT = 0.18
_PANEL_AREA, _PANEL_LONGEST, _PANEL_SHORTEST, _NARROWEST = 24.0, 8.0, 0.2, 4.6


class _Layout(NamedTuple):
    """Size of the figure, and x, y, width, height of each box from the lower left, in inches.

    The header has room for the title and one line.
    """

    size: tuple[float, float]
    slide: tuple[float, float, float, float]
    heatmap: tuple[float, float, float, float]
    bar: tuple[float, float, float, float]


def overview_figure(
    thumbnail: NDArray[np.uint8],
    downsample: float,
    score_map: ScoreMap,
    contours: Sequence[Polygon],
    *,
    threshold: float | None,
    title: str,
    slide_score: float | None = None,
    probability_of: ProbabilityOf | None = None,
    raw_range: tuple[float, float] | None = None,
    unscored: Unscored | None = None,
) -> Figure:
    """Draw a slide with its contours, and its scores over the slide in gray.

    The two pictures lie side by side, or one above the other for a wide slide. Colors mean the same
    on every slide of a run: 0..1 for probabilities, or the given range for raw scores, which have
    no bounds of their own. If no range is given it is that of the slide, and the picture says so.

    Args:
        thumbnail: uint8, (height, width, 3), the whole slide in the QuPath frame.
        downsample: Level-0 pixels per thumbnail pixel.
        score_map: The scores.
        contours: Level-0 pixels of the QuPath frame.
        threshold: Raw score that is marked on the color bar; None if there is none.
        title: Name of the slide.
        slide_score: Raw score of the slide; None if there is none.
        probability_of: Turns raw scores into probabilities, which are shown instead.
        raw_range: Lowest and highest raw score of the color bar; widened to hold the threshold.
        unscored: What is neither glass nor scored: hatched, if it is much.
    """
    height, width = thumbnail.shape[:2]
    area_mm2 = sum(polygon.area for polygon in contours) * score_map.mpp**2 / 1e6
    facts = [f"{counted(len(contours), 'contour')}, {area_mm2:.2f} mm²"]
    for name, score in (("threshold", threshold), ("slide score", slide_score)):
        if score is not None:
            fact = f"{name} {_shown(score)}"
            if probability_of is not None:
                fact += f" (probability {_probability(score, probability_of):.2f})"
            facts.insert(0, fact)
    layout = _layout(height / width)
    lines = _lines(facts, layout.size[0] - 2 * _MARGIN)
    more = (len(lines) - 1) * _LINE_HEIGHT
    figure = new_figure((layout.size[0], layout.size[1] + more), constrained=False)
    _header(figure, title, lines)

    level0 = (0.0, width * downsample, height * downsample, 0.0)
    slide = _panel(figure, layout.slide, "H&E with contours")
    slide.imshow(thumbnail, extent=level0, interpolation="antialiased", aspect="auto")
    heatmap = _panel(
        figure,
        layout.heatmap,
        "Probability of tumor"
        if probability_of is not None
        else "Raw score"
        if raw_range is not None
        else "Raw score (colors: range of this slide)",
    )
    drawn = draw_heatmap(
        heatmap,
        thumbnail,
        downsample,
        score_map,
        contours,
        threshold=threshold,
        probability_of=probability_of,
        raw_range=raw_range,
        unscored=unscored,
    )
    draw_contours(slide, contours)
    slide.set(xlim=level0[:2], ylim=level0[2:])
    _scale_bar(slide, width * downsample, score_map.mpp)
    marked = threshold
    if threshold is not None and probability_of is not None:
        marked = _probability(threshold, probability_of)
    _color_bar(figure, layout, drawn.get_clim(), marked, open_ended=probability_of is None)
    return figure


def _layout(aspect: float) -> _Layout:
    """Panels of about the same area and at most 8 inches long, for a slide of height / width."""
    width = min(math.sqrt(_PANEL_AREA / aspect), _PANEL_LONGEST, _PANEL_LONGEST / aspect)
    # Beyond 1 : 40 the picture is stretched, as nobody could see so thin a line.
    width, height = max(width, _PANEL_SHORTEST), max(width * aspect, _PANEL_SHORTEST)
    if aspect >= 0.6:
        left, right = _MARGIN, _MARGIN + width + _GAP
        low = high = _MARGIN
    else:
        left = right = _MARGIN
        low, high = _MARGIN, _MARGIN + height + _LABEL + _GAP
    bar_left = right + width + _GAP * 0.6
    total_width = bar_left + _BAR_WIDTH + _BAR_LABELS + _MARGIN
    return _Layout(
        (max(total_width, _NARROWEST), high + height + _LABEL + _HEADER),
        (left, high, width, height),
        (right, low, width, height),
        (bar_left, low, _BAR_WIDTH, height),
    )


def _box(figure: Figure, inches: tuple[float, float, float, float]) -> Axes:
    width, height = figure.get_size_inches()
    x, y, w, h = inches
    return figure.add_axes((x / width, y / height, w / width, h / height))


def _panel(
    figure: Figure,
    inches: tuple[float, float, float, float],
    label: str,
) -> Axes:
    axes = _box(figure, inches)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6)
    axes.set_title(label, loc="left", fontsize=8.5, color=QUIET, pad=4)
    return axes


def _lines(facts: Sequence[str], width: float) -> list[str]:
    """Join facts into as few lines as fit a width in inches, with at least one fact per line."""
    from matplotlib.textpath import TextPath

    # Drawn on pixels, small letters are up to a tenth wider than their outlines.
    points = 0.9 * 72 * width
    lines = [facts[0]]
    for fact in facts[1:]:
        joined = f"{lines[-1]}   ·   {fact}"
        if TextPath((0, 0), joined, size=_FACTS_SIZE).get_extents().width <= points:
            lines[-1] = joined
        else:
            lines.append(fact)
    return lines


def _header(figure: Figure, title: str, lines: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    # Wide characters of the bold face take an eighth of an inch.
    name = _shortened(title, int((width - 2 * _MARGIN) * 8))
    x = _MARGIN / width
    # Without parse_math=False a "$" in a slide's name is taken for TeX.
    figure.text(
        x, 1 - 0.3 / height, name, parse_math=False, fontsize=11.5, fontweight="bold", color=INK
    )
    for number, line in enumerate(lines):
        y = 1 - (0.53 + number * _LINE_HEIGHT) / height
        figure.text(x, y, line, parse_math=False, fontsize=_FACTS_SIZE, color=QUIET)


def _shortened(name: str, limit: int) -> str:
    """Shorten a name to one printable line, keeping both ends, where names differ most."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(line) <= limit:
        return line
    head = (limit - 1) // 2
    return f"{line[:head]}…{line[len(line) - (limit - 1 - head) :]}"


def _probability(score: float, probability_of: ProbabilityOf) -> float:
    return float(probability_of(np.array([score], dtype=np.float64))[0])


def _shown(score: float) -> str:
    return f"{score:.2f}" if abs(score) < 1e5 else f"{score:.3g}"


def _scale_bar(axes: Axes, width_px: float, mpp: float) -> None:
    """Draw a bar of a round length, about a quarter of the width of the picture."""
    from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
    from matplotlib.patches import Rectangle

    # A hair more, for the logarithm of what is just below a power of ten may be a whole number.
    wanted_um = width_px * mpp / 3 * (1 + 1e-9)
    power = 10 ** math.floor(math.log10(wanted_um))
    length_um = max(step * power for step in (1, 2, 5) if step * power <= wanted_um)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    bar = AuxTransformBox(axes.transData)
    bar.add_artist(Rectangle((0, 0), length_um / mpp, 0, ec=INK, lw=2.2, fc="none"))
    text = TextArea(label, textprops={"fontsize": 8, "color": INK})
    frame = AnchoredOffsetbox(
        "lower left", child=VPacker(children=[text, bar], align="center", pad=0, sep=3), pad=0.45
    )
    frame.patch.set(facecolor="white", alpha=0.85, edgecolor="none")
    axes.add_artist(frame)


def _color_bar(
    figure: Figure,
    layout: _Layout,
    limits: tuple[float, float],
    marked: float | None,
    *,
    open_ended: bool,
) -> None:
    """Draw the colors as they look over mid-gray tissue, and mark the threshold."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    low, high = limits
    span = high - low
    axes = _box(figure, layout.bar)
    ramp = colormaps[COLORMAP](np.linspace(0, 1, 256))[:, None, :3]
    axes.imshow(
        ramp * OPACITY + 0.8 * (1 - OPACITY),
        extent=(0, 1, low, high),
        origin="lower",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    steps = MaxNLocator(5).tick_values(low, high)
    # Nothing is printed over the mark, nor over the ends.
    inner = [tick for tick in steps if 0.07 * span <= tick - low <= 0.93 * span]
    ticks = [low, *inner, high]
    if marked is not None:
        ticks = [tick for tick in ticks if abs(tick - marked) >= 0.07 * span]
    labels = [_shown(tick) for tick in ticks]
    if open_ended:
        signs = {low: "≤ ", high: "≥ "}
        labels = [signs.get(tick, "") + label for tick, label in zip(ticks, labels, strict=True)]
    axes.set_yticks(ticks, labels)
    axes.tick_params(labelsize=8, labelcolor=QUIET, color=FRAME, length=3)
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6)
    if marked is not None:
        for color, width in ((CASING, 2.6), (LINE, 1.3)):
            axes.axhline(marked, color=color, linewidth=width)
        axes.annotate(
            f"{_shown(marked)}\nthreshold",
            (1, marked),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=INK,
            annotation_clip=False,
        )
