"""Other readers than OpenSlide: what they would gain on the fields that predictions read."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from qprd.slides.slide import Slide
from speed_rows.reading import SLIDES
from speed_rows.row import Row, RowStart, Setup, seconds

_FIELD_PX, _STEP_PX, _THREADS = 1_024, 768, 2
#: What would be worth a dependency.
_WORTH = 1.5

Read = Callable[[int, int], NDArray[np.uint8]]
Open = Callable[[Path, ExitStack], Read]


def measure(setup: Setup) -> Iterator[Row]:
    """Fields that overlap as a prediction's do, in two threads; the file is opened anew."""
    for kind, name in SLIDES.items():
        file = setup.data / "slides" / name
        for reader, opened in _READERS.items():
            row: RowStart = (f"{reader}, {kind}", "OpenSlide as qprd uses it", ">=", _WORTH)
            if not file.is_file() or importlib.util.find_spec(reader) is None:
                missing = file if not file.is_file() else f"{reader}: pip install {reader}"
                yield Row(*row, None, f"needs {missing}")
                continue
            with Slide(file) as slide:
                width, height = min(slide.width, 4096), min(slide.height, 4096)
            corners = [
                (x, y)
                for y in range(0, height - _FIELD_PX + 1, _STEP_PX)
                for x in range(0, width - _FIELD_PX + 1, _STEP_PX)
            ]
            openslide_s, other_s = seconds(
                *(partial(_all, way, file, corners) for way in (_openslide, opened))
            )
            detail = f"{reader} {version(reader)}: {len(corners) / other_s:.0f} and "
            detail += f"{len(corners) / openslide_s:.0f} fields of {_FIELD_PX} px/s"
            yield Row(*row, openslide_s / other_s, detail)


def _all(
    opened: Callable[[Path, ExitStack], Read], file: Path, corners: list[tuple[int, int]]
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(_THREADS) as threads:
        read = opened(file, stack)
        for _ in threads.map(lambda corner: read(*corner), corners):
            pass


def _openslide(file: Path, stack: ExitStack) -> Read:
    slide = stack.enter_context(Slide(file))
    return lambda x, y: slide.read_region(x, y, _FIELD_PX, _FIELD_PX, None)


def _fastslide(file: Path, stack: ExitStack) -> Read:
    import fastslide  # noqa: PLC0415

    slide = fastslide.FastSlide.from_file_path(str(file))
    stack.callback(slide.close)
    size = (_FIELD_PX, _FIELD_PX)
    return lambda x, y: np.array(slide.read_region((x, y), 0, size).numpy())


def _tifffile(file: Path, stack: ExitStack) -> Read:
    """Each tile of the file is decoded whenever a field needs it: it has no cache."""
    page = stack.enter_context(tifffile.TiffFile(file)).pages.first
    handle, edge_x, edge_y = page.parent.filehandle, page.tilewidth, page.tilelength
    across = -(-page.imagewidth // edge_x)

    def read(x: int, y: int) -> NDArray[np.uint8]:
        field = np.empty((_FIELD_PX, _FIELD_PX, 3), np.uint8)
        for row in range(y // edge_y, (y + _FIELD_PX - 1) // edge_y + 1):
            for column in range(x // edge_x, (x + _FIELD_PX - 1) // edge_x + 1):
                index = row * across + column
                with handle.lock:
                    handle.seek(page.dataoffsets[index])
                    data = handle.read(page.databytecounts[index])
                tile, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
                top, left = row * edge_y - y, column * edge_x - x
                part = field[max(top, 0) : top + edge_y, max(left, 0) : left + edge_x]
                if tile is None:
                    raise ValueError(f"tile {index} is empty")
                inside = tile[0, max(-top, 0) :, max(-left, 0) :]
                part[:] = inside[: part.shape[0], : part.shape[1]]
        return field

    return read


_READERS = {"fastslide": _fastslide, "tifffile": _tifffile}
