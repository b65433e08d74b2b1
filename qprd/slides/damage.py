"""Damage of a slide's file that opening it does not show."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from qprd.errors import QprdError
from qprd.slides.slide import Slide

_COPY_AGAIN = "Copy it again from its source, or leave it out with --exclude NAME."


def refuse_damage(slide: Slide, places: Iterable[tuple[float, float]]) -> None:
    """Make sure that a slide's file is complete, and its pixels at some places can be read.

    Of a TIFF file, all tiles of all its images are looked up; other formats are only read from. The
    tile at each place, x and y in level-0 pixels, is decoded.

    Raises:
        QprdError: The file is cut off, or damaged at one of the places.
    """
    _refuse_cut_off(slide.path)
    for x, y in places:
        slide.read_region(x, y, 1, 1, None)


def _refuse_cut_off(path: Path) -> None:
    import tifffile

    lost = count = 0
    try:
        size = path.stat().st_size
        with tifffile.TiffFile(path) as file:
            for page in file.pages:
                if isinstance(page, tifffile.TiffPage):
                    for image in (page, *(page.pages or ())):
                        sizes = np.asarray(image.databytecounts, dtype=np.int64)
                        ends = np.asarray(image.dataoffsets, dtype=np.int64) + sizes
                        lost += int((ends > size).sum())
                        count += len(ends)
    except Exception:  # noqa: BLE001
        # Other formats, and TIFF files that only OpenSlide can make sense of.
        return
    if lost:
        raise QprdError(
            f"The slide's file is cut off: {lost} of its {count} tiles are beyond its end.",
            where=str(path),
            fix=_COPY_AGAIN,
        )
