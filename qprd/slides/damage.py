"""Damage of a slide's file that opening it does not show."""

from __future__ import annotations

from collections.abc import Iterable

from qprd.errors import QprdError, read_errors
from qprd.slides.slide import Slide

_COPY_AGAIN = "Copy it again from its source, or leave it out with --exclude NAME."


def refuse_damage(slide: Slide, places: Iterable[tuple[float, float]]) -> None:
    """Make sure that a slide's file is complete, and its pixels at some places can be read.

    Of a TIFF file, all tiles of all its images are looked up; other formats are only read from. The
    tile at each place, x and y in level-0 pixels, is decoded.

    Raises:
        QprdError: The file is cut off, or damaged at one of the places.
    """
    _refuse_cut_off(slide)
    for x, y in places:
        slide.require_readable(x, y)


def _refuse_cut_off(slide: Slide) -> None:
    with read_errors("The slide", slide.path):
        size = slide.path.stat().st_size
    ends = [table.offsets + table.counts for table in slide.tile_tables]
    if lost := sum(int((end > size).sum()) for end in ends):
        raise QprdError(
            f"The slide's file is cut off: {lost} of its {sum(map(len, ends))} tiles are beyond "
            "its end.",
            where=str(slide.path),
            fix=_COPY_AGAIN,
        )
