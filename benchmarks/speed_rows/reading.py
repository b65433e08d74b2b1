"""Patches read as predictions read them, against a plain loop over the slide."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import openslide

from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide
from speed_rows.row import Row, RowStart, Setup, seconds

_PATCH_PX, _STRIDE, _FIELD_PX, _MOST_PX = 256, 128, 1_024, 4_096
SLIDES = {"SVS": "cmu-1-small-region.svs", "TIFF": "colon_2.tif"}

Corner = tuple[int, int]


def measure(setup: Setup) -> Iterator[Row]:
    """Patches at half a patch's distance, the default of a prediction, in two threads."""
    for kind, name in SLIDES.items():
        file = setup.data / "slides" / name
        row: RowStart = (f"reading patches, {kind}", "a `read_region` loop, two threads", ">=", 1.5)
        if not file.is_file():
            yield Row(*row, None, f"needs {file}")
            continue
        with openslide.OpenSlide(file) as slide:
            width, height = (min(edge, _MOST_PX) for edge in slide.dimensions)
        corners = _grid(width, height, _PATCH_PX, _STRIDE)
        fields = _grid(width, height, _FIELD_PX, _FIELD_PX - _PATCH_PX + _STRIDE)
        plain, ours = seconds(partial(_loop, file, corners), partial(_fields, file, fields))
        inside = len(fields) * len(_grid(_FIELD_PX, _FIELD_PX, _PATCH_PX, _STRIDE))
        yield Row(
            *row,
            (plain / len(corners)) / (ours / inside),
            f"{inside / ours:.0f} and {len(corners) / plain:.0f} patches of {_PATCH_PX} px/s, "
            f"one at every {_STRIDE}th pixel of {width:,} x {height:,}",
        )


def _grid(width: int, height: int, size: int, step: int) -> list[Corner]:
    """Corners of the squares of a size that fit, row by row."""
    rows, columns = range(0, height - size + 1, step), range(0, width - size + 1, step)
    return [(x, y) for y in rows for x in columns]


def _loop(file: Path, corners: list[Corner]) -> None:
    size = (_PATCH_PX, _PATCH_PX)
    with openslide.OpenSlide(file) as slide, ThreadPoolExecutor(2) as readers:

        def read(corner: Corner) -> None:
            np.asarray(slide.read_region(corner, 0, size).convert("RGB"))

        for _ in readers.map(read, corners):
            pass


def _fields(file: Path, fields: list[Corner]) -> None:
    cut = _grid(_FIELD_PX, _FIELD_PX, _PATCH_PX, _STRIDE)
    with Slide(file) as slide:

        def read(corner: Corner) -> np.ndarray:
            return slide.read_region(*corner, _FIELD_PX, _FIELD_PX, None)

        for _, pixels in read_ahead(read, fields):
            for x, y in cut:
                np.ascontiguousarray(pixels[y : y + _PATCH_PX, x : x + _PATCH_PX])
