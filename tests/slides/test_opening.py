from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from qprd.errors import QprdError
from qprd.slides.opening import open_image_file
from qprd.slides.slide import Slide
from tests.helpers.plain_images import HEIGHT, WIDTH, pixels, plain_image


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "lzw", "turned tif"])
def test_plain_images_are_shown_as_they_are_stored(tmp_path: Path, kind: str) -> None:
    with Slide(plain_image(tmp_path, kind)) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        read = slide.read_region(0, 0, WIDTH, HEIGHT, None)
    np.testing.assert_array_equal(read, pixels())


@pytest.mark.parametrize("kind", ["jpg", "turned jpg"])
def test_the_orientation_of_a_photograph_is_left_alone(tmp_path: Path, kind: str) -> None:
    with Slide(plain_image(tmp_path, kind)) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)


def test_an_opaque_image_is_held_with_three_bytes_a_pixel(tmp_path: Path) -> None:
    with open_image_file(plain_image(tmp_path, "png")) as handle:
        assert isinstance(handle, openslide.ImageSlide)
        assert handle._image is not None
        assert handle._image.mode == "RGB"


def test_huge_plain_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (12_000, 9_000)).save(path)
    with pytest.raises(QprdError, match="too large"):
        open_image_file(path)


def test_a_tile_larger_than_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "tiled.tif"
    tifffile.imwrite(path, pixels()[:256, :256], tile=(64, 64), metadata=None)
    with tifffile.TiffFile(path) as file:
        width = file.pages.first.tags["TileWidth"]
    with path.open("r+b") as stream:
        stream.seek(width.valueoffset)
        stream.write((2**26).to_bytes(4, "little"))
    with pytest.raises(QprdError, match="tiles of 67108864 x 64 px"):
        open_image_file(path)
