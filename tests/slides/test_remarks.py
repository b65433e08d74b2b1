"""What is said of slides whose scores are to be doubted."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from qprd.slides.remarks import missing_tiles, overview_of, remarks
from qprd.slides.slide import Slide
from tests.helpers.drawn_project import painted

TILE_PX = 128
PIXELS = painted(0)


def tiled(path: Path, pixels: NDArray[np.generic], *missing: int) -> Path:
    """A TIFF file in tiles, some of which have neither bytes nor a place."""
    tifffile.imwrite(path, pixels, tile=(TILE_PX, TILE_PX), compression="zlib", metadata=None)
    empty_tiles(path, 0, *missing)
    return path


def empty_tiles(path: Path, page: int, *missing: int) -> None:
    with tifffile.TiffFile(path) as file:
        directory = file.pages[page]
        assert isinstance(directory, tifffile.TiffPage)
        tags = [directory.tags[name] for name in ("TileOffsets", "TileByteCounts")]
        places = [(tag.valueoffset, {3: "<H", 4: "<I"}[int(tag.dtype)]) for tag in tags]
    with path.open("r+b") as stream:
        for offset, kind in places:
            for tile in missing:
                stream.seek(offset + tile * struct.calcsize(kind))
                stream.write(struct.pack(kind, 0))


def said(path: Path, *, mpp: float = 0.5, patch_um: float = 64, model_mpp: float = 0.5) -> str:
    with Slide(path, mpp=mpp) as slide:
        found = remarks(slide, overview_of(slide), patch_um=patch_um, mpp=model_mpp)
        return " | ".join(found)


def test_nothing_is_said_of_an_ordinary_slide(tmp_path: Path, shared_data: Path) -> None:
    assert said(tiled(tmp_path / "a.tif", PIXELS)) == ""
    white = np.full_like(PIXELS, 255)
    assert said(tiled(tmp_path / "white.tif", white)) == ""
    for name in ("colon_1.tif", "cmu-1-small-region.svs"):
        for model_mpp in (0.25, 0.5, 1.0):
            path = shared_data / "slides" / name
            assert said(path, mpp=0.25, model_mpp=model_mpp) == ""


@pytest.mark.parametrize(
    ("mpp", "model_mpp", "told"),
    [
        (1.0, 0.5, "1 um/px is coarser than the model's 0.5 um/px"),
        (0.05, 0.5, "0.05 um/px is 10 times finer than the model's 0.5 um/px"),
        (0.1, 0.5, "0.1 um/px is 5 times finer"),
    ],
)
def test_a_resolution_far_from_the_models_is_said(
    tmp_path: Path, mpp: float, model_mpp: float, told: str
) -> None:
    path = tiled(tmp_path / "a.tif", PIXELS)
    assert told in said(path, mpp=mpp, patch_um=16, model_mpp=model_mpp)


def test_a_patch_larger_than_the_slide_is_said(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif", PIXELS[:120])
    told = "320 x 60 um is smaller than a patch of 64 um"
    assert told in said(path)
    assert said(path, patch_um=60) == ""


def test_a_gray_slide_is_said(tmp_path: Path) -> None:
    gray = PIXELS[..., 1]
    for name, pixels in (("gray.tif", gray), ("rgb.tif", np.stack([gray] * 3, axis=-1))):
        assert said(tiled(tmp_path / name, pixels)).startswith("it is gray")


def test_a_slide_with_a_dark_background_is_said(tmp_path: Path) -> None:
    dark = np.zeros((400, 400, 3), dtype=np.uint8)
    dark[100:300, 100:300] = (30, 60, 200)
    assert said(tiled(tmp_path / "a.tif", dark)).startswith("it has no bright background")


def test_twelve_bits_shown_as_eight_are_said(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif", PIXELS.astype(np.uint16) * 16)
    assert re.match(r"it is nearly black \(its bright pixels have 1[56] of 255\)", said(path))


def test_tiles_without_bytes_are_counted_in_the_frame(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif", PIXELS, 0, 7, 12)
    missing_px = 3 * TILE_PX**2
    area_mm2 = missing_px * 0.25 / 1e6
    told = f"3 tiles are missing in its file ({area_mm2:.3g} mm², 10.9% of it), and taken for white"
    assert told in said(path)
    with Slide(path, mpp=0.5) as slide:
        assert (slide.read_region(0, 0, 64, 64, None) == 255).all()
    crop = (TILE_PX // 2, 0, 300, TILE_PX)
    with Slide(path, mpp=0.5, crop=crop, rotation=90) as slide:
        assert missing_tiles(slide) == (1, TILE_PX**2 / 2)


def test_tiles_of_a_smaller_level_are_counted_at_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    levels = (PIXELS, PIXELS[::2, ::2])
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(level, tile=(TILE_PX, TILE_PX), subfiletype=int(number > 0), metadata=None)
    empty_tiles(path, 1, 4)
    with Slide(path, mpp=0.5) as slide:
        assert len(slide.level_sizes) == 2
        assert missing_tiles(slide) == (1, (2 * TILE_PX) ** 2)


def test_no_tiles_are_missing_where_there_are_none(tmp_path: Path, shared_data: Path) -> None:
    striped = tmp_path / "striped.tif"
    tifffile.imwrite(striped, PIXELS, rowsperstrip=16, metadata=None)
    for path in (striped, shared_data / "slides" / "cmu-1-small-region.svs"):
        with Slide(path, mpp=0.5) as slide:
            assert missing_tiles(slide) == (0, 0.0)
