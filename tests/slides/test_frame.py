from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.slides.frame import Rotation, qupath_frame, slide_bounds

ROTATIONS: list[Rotation] = [0, 90, 180, 270]
IMAGE = np.arange(37 * 53, dtype=np.int64).reshape(37, 53)


@st.composite
def rectangles(draw: st.DrawFn, width: int, height: int) -> tuple[int, int, int, int]:
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))


@given(st.data(), st.sampled_from(ROTATIONS))
def test_any_rectangle_equals_that_of_the_bounded_cropped_rotated_image(
    data: st.DataObject, rotation: Rotation
) -> None:
    bounds = data.draw(rectangles(53, 37))
    crop = data.draw(rectangles(bounds[2], bounds[3]))
    frame = qupath_frame(bounds, crop, rotation)
    shown = IMAGE[bounds[1] : bounds[1] + bounds[3], bounds[0] : bounds[0] + bounds[2]]
    shown = shown[crop[1] : crop[1] + crop[3], crop[0] : crop[0] + crop[2]]
    shown = np.rot90(shown, k=-(rotation // 90))
    assert (frame.height, frame.width) == shown.shape
    x, y, width, height = data.draw(rectangles(frame.width, frame.height))
    left, top, across, down = (int(v) for v in frame.to_file(x, y, width, height))
    read = frame.orient(IMAGE[top : top + down, left : left + across])
    np.testing.assert_array_equal(read, shown[y : y + height, x : x + width])


def test_ninety_degrees_is_clockwise_as_in_qupath() -> None:
    # RotatedImageServer.rotateRequest, ROTATE_90: x' = y, y' = width - x - w.
    frame = qupath_frame((0, 0, 100, 60), None, 90)
    assert (frame.width, frame.height) == (60, 100)
    assert frame.to_file(0, 0, 10, 20) == (0, 50, 20, 10)


def test_bounds_need_all_four_integers() -> None:
    full = {
        "openslide.bounds-x": "5",
        "openslide.bounds-y": "6",
        "openslide.bounds-width": "70",
        "openslide.bounds-height": "80",
    }
    assert slide_bounds(full, 100, 100) == (5, 6, 70, 80)
    for name in full:
        assert slide_bounds({k: v for k, v in full.items() if k != name}, 100, 90) == (
            0,
            0,
            100,
            90,
        )
        assert slide_bounds(full | {name: "1.5"}, 100, 90) == (0, 0, 100, 90)


@pytest.mark.parametrize(("crop", "rotation"), [((0, 0, 0, 5), 0), (None, 45)])
def test_impossible_frames_are_refused(
    crop: tuple[int, int, int, int] | None, rotation: Rotation
) -> None:
    with pytest.raises(QprdError):
        qupath_frame((0, 0, 10, 10), crop, rotation)
