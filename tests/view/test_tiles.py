"""Tiles are the slide in the frame that QuPath shows, and only so many slides are open at once."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from qprd.slides.slide import Slide
from qprd.view.tiles import TILE_PX, OpenSlides, last_level, read_tile
from tests.helpers.drawn_project import edit
from tests.view.conftest import viewer


def first_slide(project: Path) -> Path:
    """The file of the first image."""
    with ExchangeProject(project) as opened:
        path = opened.entries()[0].source.path
    assert path is not None
    return path


def level_of(slide: Slide, level: int) -> np.ndarray:
    """All tiles of a level side by side."""
    rows, row = [], 0
    while (first := read_tile(slide, level, 0, row)) is not None:
        tiles, column = [first], 1
        while (tile := read_tile(slide, level, column, row)) is not None:
            tiles.append(tile)
            column += 1
        rows.append(np.concatenate(tiles, axis=1))
        row += 1
    return np.concatenate(rows)


@pytest.mark.parametrize("options", [{}, {"rotation": 90}, {"crop": (100, 50, 301, 500)}])
def test_the_tiles_of_a_level_are_the_slide(project: Path, options: dict[str, Any]) -> None:
    with Slide(first_slide(project), mpp=0.5, **options) as slide:
        last = last_level(slide.width, slide.height)
        whole = slide.read_downsampled(0, 0, slide.width, slide.height, 1)
        assert np.array_equal(level_of(slide, last), whole)
        half = level_of(slide, last - 1)
        assert half.shape[:2] == (-(-slide.height // 2), -(-slide.width // 2))
        read = slide.read_downsampled(0, 0, half.shape[1], half.shape[0], 2)
        assert np.array_equal(half, read)
        assert level_of(slide, 0).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("size", "level"), [((1, 1), 0), ((2, 1), 1), ((256, 3), 8), ((257, 300), 9), ((512, 1), 9)]
)
def test_levels_are_counted_as_deep_zoom_counts_them(size: tuple[int, int], level: int) -> None:
    assert last_level(*size) == level


def test_a_turned_and_cropped_image_is_served_as_qupath_shows_it(predicted: Path) -> None:
    def turn(root: Any) -> None:
        builder = root["images"][0]["serverBuilder"]
        cropped = {
            "builderType": "cropped",
            "region": {"x": 64, "y": 32, "width": 400, "height": 600, "z": 0, "t": 0},
            "builder": builder,
        }
        root["images"][0]["serverBuilder"] = {
            "builderType": "rotated",
            "rotation": "ROTATE_90",
            "builder": cropped,
        }

    edit(predicted, turn)
    with viewer(predicted) as client:
        found = client.get("/slides/1").json()
        assert (found["width"], found["height"]) == (600, 400)
        assert any("turned or cropped since" in problem for problem in found["problems"])
        assert "regions" not in found
        last = found["lastLevel"]
        jpeg = client.get(f"/slides/1/tiles/{last}/2/1").content
    served = np.asarray(Image.open(io.BytesIO(jpeg)), np.int16)
    path, left, top = first_slide(predicted), 2 * TILE_PX, TILE_PX
    with Slide(path, mpp=0.5, crop=(64, 32, 400, 600), rotation=90) as slide:
        read = slide.read_downsampled(left, top, 600 - left, 400 - top, 1)
    assert served.shape == read.shape
    assert np.abs(served - read).mean() < 4


class Closable:
    """A slide that knows whether it is open."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_only_so_many_slides_stay_open_and_none_in_use_is_closed() -> None:
    made: dict[int, Any] = {}
    slides = OpenSlides(limit=3)

    def opened(key: int) -> Any:
        made[key] = Closable()
        return made[key]

    def use(turn: int) -> None:
        key = turn % 7
        with slides.use(key, lambda: opened(key)) as slide:
            assert not slide.closed  # type: ignore[attr-defined]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))
    assert sum(not slide.closed for slide in made.values()) <= 3
    slides.close()
    assert all(slide.closed for slide in made.values())


def test_a_slide_that_cannot_be_opened_is_tried_again() -> None:
    slides, tries = OpenSlides(), []

    def fail() -> Slide:
        tries.append(1)
        raise QprdError("It is missing.")

    for _ in range(2):
        with pytest.raises(QprdError), slides.use("a", fail):
            pass
    assert len(tries) == 2
