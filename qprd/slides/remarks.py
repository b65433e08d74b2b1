"""Remarks on a slide whose scores are to be doubted: its resolution, size, colors, lost tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qprd.slides.glass import find_glass
from qprd.slides.slide import Slide
from qprd.slides.surface import is_dark
from qprd.slides.tile_tables import TileTable

#: Longer edge of an overview that is large enough to judge a slide by. A level of the slide that is
#: at most twice as large is taken as it is, which is faster.
_OVERVIEW_PX = 256

#: Pixels that are larger than the model's by more than the first factor, or smaller by more than
#: the second. A 40x slide for a model at 1 um/px is ordinary.
_MAGNIFIED, _REDUCED = 1.1, 4.5

#: Levels by which the channels of a gray image differ at most, and from which on all is glass.
_GRAY_LEVELS, _GLASS_LEVEL = 3, 200

#: Levels that nearly all of a slide is darker than if more bits were recorded than are shown.
_DARK_LEVEL, _DARK_SHARE = 40, 0.99

#: Scanners of this vendor leave tiles of glass out.
_SPARSE_VENDOR = "philips"


def remarks(
    slide: Slide, overview: NDArray[np.uint8], *, patch_um: float, mpp: float | None = None
) -> list[str]:
    """Say what makes scores of a slide, or what is learned from it, less to be trusted.

    Args:
        slide: Has a resolution.
        overview: The whole slide, small; uint8, (h, w, 3).
        patch_um: Edge of the model's patches in micrometers.
        mpp: The model's resolution; None says nothing of resolutions.
    """
    found = [_resolution_remark(slide, mpp), _size_remark(slide, patch_um), _color_remark(overview)]
    return [remark for remark in (*found, _missing_remark(slide)) if remark]


def overview_of(slide: Slide) -> NDArray[np.uint8]:
    """Read an overview of a slide for `remarks`, uint8, (h, w, 3)."""
    edges = (max(size) for size in slide.level_sizes)
    small = (edge for edge in edges if _OVERVIEW_PX <= edge <= 2 * _OVERVIEW_PX)
    return slide.thumbnail(min(small, default=_OVERVIEW_PX))[0]


def _resolution_remark(slide: Slide, mpp: float | None) -> str | None:
    if mpp is None or slide.mpp is None:
        return None
    compared = f"{slide.mpp:.3g} um/px is {{}} than the model's {mpp:.3g} um/px; "
    if slide.mpp > mpp * _MAGNIFIED:
        return compared.format("coarser") + "its patches are magnified, and less to be trusted"
    if slide.mpp * _REDUCED < mpp:
        return (
            compared.format(f"{mpp / slide.mpp:.0f} times finer") + "check its pixel size in QuPath"
        )
    return None


def _size_remark(slide: Slide, patch_um: float) -> str | None:
    if slide.mpp is None:
        return None
    width_um, height_um = slide.width * slide.mpp, slide.height * slide.mpp
    if min(width_um, height_um) >= patch_um - slide.mpp:
        return None
    return (
        f"{width_um:.3g} x {height_um:.3g} um is smaller than a patch of {patch_um:.3g} um, so "
        "that none lies inside it; if it is larger, correct its pixel size in QuPath"
    )


def _color_remark(overview: NDArray[np.uint8]) -> str | None:
    # The outermost pixels are mixed with the white outside the slide.
    inner = overview[1:-1, 1:-1] if min(overview.shape[:2]) > 2 else overview
    red, green, blue = (inner[..., channel] for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    if np.count_nonzero(most < _DARK_LEVEL) > _DARK_SHARE * most.size:
        return (
            f"it is nearly black (its bright pixels have {np.quantile(most, _DARK_SHARE):.0f} of "
            "255): it may have more than 8 bits a channel; export it as 8-bit RGB"
        )
    if is_dark(most) and find_glass(inner.reshape(-1, 3)) is None:
        return (
            "it has no bright background, and qprd is made for stained sections on bright glass: "
            "what it takes for tissue is a guess; outline the tissue, and name its class with "
            "--tissue-class"
        )
    least = np.minimum(np.minimum(red, green), blue)
    if (most - least).max() <= _GRAY_LEVELS and least.min() < _GLASS_LEVEL:
        return (
            "it is gray, and the network expects the colors of a stained slide; whatever is darker "
            "than the glass counts as tissue, pen and dust included"
        )
    return None


def _missing_remark(slide: Slide) -> str | None:
    count, area_px = missing_tiles(slide)
    if not count or slide.mpp is None:
        return None
    share = area_px / (slide.width * slide.height)
    return (
        f"{count} tiles are missing in its file ({area_px * slide.mpp**2 / 1e6:.3g} mm², "
        f"{share:.1%} of it), and taken for white glass; copy or export it again"
    )


def missing_tiles(slide: Slide) -> tuple[int, float]:
    """Tiles of a TIFF file that hold no bytes, and their area in level-0 pixels.

    OpenSlide shows them as transparent. Only what lies in the slide's frame counts, and of several
    levels the one that lacks most.
    """
    # Plain images have no tiles; a damaged one may have pages that form a circle.
    if slide.vendor in ("", _SPARSE_VENDOR):
        return 0, 0.0
    # Of Aperio's other levels, OpenSlide makes what is missing from level 0.
    sizes = slide.level_sizes[:1] if slide.vendor == "aperio" else slide.level_sizes
    found = (
        _missing_in_frame(slide, table, table.tile)
        for table in slide.tile_tables
        if table.tile is not None and table.size in sizes
    )
    return max(found, key=lambda missing: missing[1], default=(0, 0.0))


def _missing_in_frame(slide: Slide, table: TileTable, tile: tuple[int, int]) -> tuple[int, float]:
    columns, rows = (-(-length // edge) for length, edge in zip(table.size, tile, strict=True))
    row, column = np.divmod(np.flatnonzero(table.counts[: rows * columns] == 0), columns)
    frame, full = slide.frame, slide.level_sizes[0]
    width = _overlap(column, tile[0] * full[0] / table.size[0], frame.file_x, frame.file_width)
    height = _overlap(row, tile[1] * full[1] / table.size[1], frame.file_y, frame.file_height)
    return int(np.count_nonzero(width * height)), float((width * height).sum())


def _overlap(
    index: NDArray[np.intp], edge: float, frame_start: int, frame_length: int
) -> NDArray[np.float64]:
    """Lengths of tiles of one axis that lie in the frame."""
    end = np.minimum((index + 1) * edge, frame_start + frame_length)
    overlap: NDArray[np.float64] = np.maximum(end - np.maximum(index * edge, frame_start), 0)
    return overlap
