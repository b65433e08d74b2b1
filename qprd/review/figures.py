"""Figures of matplotlib that need no display and share nothing between threads: no pyplot."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colors, which are told apart with every kind of color blindness.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
#: Colors of text, of labels, and of lines that stay in the background.
INK, QUIET, GRID, FRAME = "#1b1b1f", "#5c5c66", "#e6e6ea", "#b9b9c2"


def new_figure(size: tuple[float, float], *, constrained: bool = True) -> Figure:
    """Make an empty white figure of a width and height in inches.

    Matplotlib places the axes if it is ``constrained``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained" if constrained else None, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """Draw a figure as a PNG file, without a date or version in it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A slide's name may be in a script that the font lacks; a box stands for the letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
