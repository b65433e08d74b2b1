"""The tile tables of TIFF files: where the bytes of each tile of each image are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage


@dataclass(frozen=True)
class TileTable:
    """The tiles of an image in a TIFF file, row by row.

    Attributes:
        size: Width and height of the image in its own pixels.
        tile: Width and height of a tile; None if the image is stored in strips.
        offsets: Where in the file the bytes of each tile begin, (n,).
        counts: Number of bytes of each tile, (n,).
    """

    size: tuple[int, int]
    tile: tuple[int, int] | None
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]


def read_tile_tables(path: Path) -> tuple[TileTable, ...]:
    """Read the tables of all images of a TIFF file, those of smaller levels included.

    Returns:
        The tables; none for files of other formats, and for TIFF files that only OpenSlide can make
        sense of.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return tuple(map(_table, _images(file)))
    except Exception:  # noqa: BLE001
        return ()


def _images(file: TiffFile) -> Iterator[TiffPage]:
    from tifffile import TiffPage

    for page in file.pages:
        if isinstance(page, TiffPage):
            yield page
            yield from (level for level in page.pages or () if isinstance(level, TiffPage))


def _table(image: TiffPage) -> TileTable:
    offsets = np.asarray(image.dataoffsets, dtype=np.int64)
    counts = np.asarray(image.databytecounts, dtype=np.int64)
    if offsets.shape != counts.shape:
        raise ValueError("there are not as many sizes of tiles as places")
    return TileTable(
        (image.imagewidth, image.imagelength),
        (image.tilewidth, image.tilelength) if image.is_tiled else None,
        offsets,
        counts,
    )
