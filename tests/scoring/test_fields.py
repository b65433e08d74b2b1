from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qprd.checked import STRIDE_PX
from qprd.scoring.fields import HALO_PX, Field, Windows, cheapest_fields, fields_of, split


@st.composite
def some_windows(draw: st.DrawFn) -> Windows:
    size = draw(st.sampled_from([32, 96, 160]))
    place = st.integers(0, 700)
    places = draw(st.lists(st.tuples(place, place), min_size=1, max_size=12))
    x, y = np.array(places, dtype=np.int64).T
    return Windows(x, y, size)


def painted(fields: list[Field], windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """How often each pixel is in a core, and how many pixels of each window are in its fields."""
    cores = np.zeros((1100, 1100), np.int64)
    covered = np.zeros(len(windows), np.int64)
    for field in fields:
        cores[field.top : field.bottom, field.left : field.right] += 1
        x, y = windows.x[field.windows], windows.y[field.windows]
        wide = np.minimum(x + windows.size, field.right) - np.maximum(x, field.left)
        high = np.minimum(y + windows.size, field.bottom) - np.maximum(y, field.top)
        assert (wide > 0).all()
        assert (high > 0).all()
        covered[field.windows] += wide * high
    return cores, covered


@given(some_windows(), st.sampled_from([64, 128, 256]))
def test_fields_hold_each_pixel_of_each_window_once(windows: Windows, edge: int) -> None:
    fields = fields_of(windows, edge)
    cores, covered = painted(fields, windows)
    assert cores.max() == 1
    assert (covered == windows.size**2).all()
    for field in fields:
        assert field.edge <= edge
        assert not any(v % STRIDE_PX for v in (field.left, field.top, field.right, field.bottom))
    below_or_right = [(f.bottom, f.right) for f in fields]
    assert all(
        f.top >= b or f.left >= r for f, (b, r) in zip(fields[1:], below_or_right, strict=False)
    )


@given(some_windows(), st.sampled_from([64, 128]))
def test_the_parts_of_a_field_hold_what_it_held(windows: Windows, edge: int) -> None:
    fields = fields_of(windows, 2 * edge)
    parts = [part for field in fields for part in split(field, windows, edge)]
    cores, covered = painted(parts, windows)
    assert cores.max() == 1
    assert (covered == windows.size**2).all()
    assert all(part.edge <= edge for part in parts)


def test_close_windows_share_a_large_field_and_distant_ones_have_small_ones() -> None:
    grid = np.arange(0, 1024, 64)
    close = Windows(np.tile(grid, 16), np.repeat(grid, 16), 64)
    assert len(cheapest_fields(close, [128, 1024])) == 1
    apart = Windows(np.array([0, 1100, 3100]), np.array([0, 2100, 600]), 64)
    assert len(cheapest_fields(apart, [256, 4096])) == 3


def test_a_square_is_cut_into_equal_parts_wherever_it_lies() -> None:
    grid = np.arange(352, 352 + 2112, 64)
    windows = Windows(np.tile(grid, len(grid)), np.repeat(grid, len(grid)), 128)
    fields = fields_of(windows, 1280)
    assert len(fields) == 4
    assert {(f.right - f.left, f.bottom - f.top) for f in fields} == {(1088, 1088)}


def test_a_narrow_gap_is_bridged_and_a_wide_one_left_out() -> None:
    for gap, count in ((2 * HALO_PX - STRIDE_PX, 1), (2 * HALO_PX, 2)):
        apart = Windows(np.array([0, 64 + gap]), np.array([0, 0]), 64)
        assert len(fields_of(apart, 1024)) == count


def test_a_halo_ends_where_the_slide_ends() -> None:
    grown = Field(32, 0, 512, 96, np.arange(1)).grown(500, 400)
    assert (grown.left, grown.top, grown.right, grown.bottom) == (0, 0, 500, 96 + HALO_PX)
