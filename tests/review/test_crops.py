from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon, box

from qprd.review.crops import crop_jpeg

PINK = np.full((200, 100, 3), (230, 160, 200), np.uint8)


def crop(pixels: np.ndarray = PINK, drawn: Polygon | MultiPolygon = Polygon()) -> np.ndarray:  # noqa: B008
    """A crop of level-0 (1000, 2000) to (1200, 2400)."""
    jpeg = crop_jpeg(
        pixels,
        left=1000,
        top=2000,
        downsample=2,
        cell=(1080, 2160, 1120, 2240),
        drawn=drawn,
    )
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def is_light_blue(pixel: np.ndarray) -> bool:
    red, green, blue = pixel
    return bool(green > 190 and blue > 190 and red < 190)


def test_the_cell_is_outlined_where_it_lies() -> None:
    picture = crop()
    assert picture.shape == PINK.shape
    for row, column in ((80, 50), (120, 50), (100, 40), (100, 60)):
        near = picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
        assert any(is_light_blue(pixel) for pixel in near), (row, column)
    assert picture[100, 50] == pytest.approx([230, 160, 200], abs=6)
    assert picture[10, 10] == pytest.approx([230, 160, 200], abs=6)


def test_the_border_of_what_was_drawn_is_shown_where_it_crosses() -> None:
    plain, with_border = crop(), crop(drawn=box(0, 0, 1020, 9000))
    changed = np.abs(plain - with_border).max(axis=2) > 40
    assert changed[:, 8:13].any(axis=1).all()
    assert not changed[:, 30:].any()


def test_tumor_all_around_or_far_away_shows_no_border() -> None:
    for drawn in (box(0, 0, 9000, 9000), box(5000, 5000, 6000, 6000), MultiPolygon()):
        assert np.abs(crop() - crop(drawn=drawn)).max() <= 2
