from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from qprd.demo.slides import write_pyramidal_tiff
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask, drop_small, find_tissue, tissue_mask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 11)))


def section(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A round pink and purple section on noisy glass, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:300, 0:400]
    inside = np.hypot(x - 200, y - 150) < 100
    nuclei = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 2) > 0.08
    pixels = np.full((*inside.shape, 3), (241, 240, 242), dtype=float)
    pixels[inside] = (228, 165, 200)
    pixels[inside & nuclei] = (125, 80, 155)
    pixels += rng.normal(0, 4, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), inside


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_section_on_glass_is_found() -> None:
    pixels, inside = section()
    assert overlap(find_tissue(pixels, min_area_px=100, max_hole_px=200), inside) > 0.97


@pytest.mark.parametrize("sigma", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("glass", [(255, 255, 255), (242, 240, 243), (225, 226, 222)])
def test_empty_slide_has_no_tissue(sigma: float, glass: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = np.array(glass) + rng.normal(0, sigma, (300, 300, 3))
    shade = 1 - 0.06 * np.mgrid[0:300, 0:300][0][..., None] / 300
    pixels = np.clip(pixels * shade, 0, 255).astype(np.uint8)
    assert not find_tissue(pixels, min_area_px=50).any()


def test_slide_that_is_all_tissue_is_all_tissue() -> None:
    pixels, _ = section()
    # The inside of the section alone: Otsu would part its nuclei from its stroma.
    assert find_tissue(pixels[90:210, 130:270], max_hole_px=200).mean() > 0.99


@pytest.mark.parametrize(
    "ink",
    [(30, 60, 180), (60, 120, 200), (30, 140, 70), (20, 90, 60), (40, 40, 42), (200, 30, 45)],
    ids=["blue", "light blue", "green", "dark green", "black", "red"],
)
def test_pen_is_no_tissue_and_does_not_hide_the_section(ink: tuple[int, int, int]) -> None:
    pixels, inside = section()
    stroke = np.zeros(inside.shape, dtype=np.float64)
    stroke[15:35, 20:380] = 1
    stroke[20:280, 20:36] = 1
    opacity = ndimage.gaussian_filter(stroke, 1.5)[..., None]
    marked = (pixels * (1 - opacity) + np.array(ink) * opacity).astype(np.uint8)
    found = find_tissue(marked, min_area_px=100, max_hole_px=200)
    assert found[ndimage.binary_dilation(stroke > 0, iterations=6)].mean() < 0.02
    assert overlap(found, inside) > 0.96


@pytest.mark.parametrize("fill", [0, 255])
def test_scanner_fill_is_no_tissue(fill: int) -> None:
    pixels, inside = section()
    padded = np.pad(pixels, ((60, 40), (150, 150), (0, 0)), constant_values=fill)
    expected = np.pad(inside, ((60, 40), (150, 150)))
    assert overlap(find_tissue(padded, min_area_px=100, max_hole_px=200), expected) > 0.97


def test_black_slide_has_no_tissue() -> None:
    assert not find_tissue(np.zeros((50, 60, 3), dtype=np.uint8)).any()


def test_specks_go_and_small_holes_close() -> None:
    pixels, _ = section()
    pixels[10:14, 10:14] = (150, 60, 150)
    pixels[145:153, 195:203] = 242
    found = find_tissue(pixels, min_area_px=100, max_hole_px=200)
    assert not found[:30, :30].any()
    assert found[140:160, 190:210].all()
    pixels[130:170, 180:220] = 242
    assert not find_tissue(pixels, min_area_px=100, max_hole_px=200)[140:160, 190:210].any()


@given(MASKS, st.integers(0, 6))
def test_drop_small_keeps_only_large_pieces_untouched(mask: np.ndarray, least: int) -> None:
    kept = drop_small(mask, least)
    assert not (kept & ~mask).any()
    labels, count = ndimage.label(mask)
    for label in range(1, count + 1):
        piece = labels == label
        assert kept[piece].all() == (piece.sum() >= least)
        assert kept[piece].any() == (piece.sum() >= least)


@given(MASKS, st.floats(0.5, 20), st.floats(-30, 150), st.floats(-30, 150), st.floats(0.3, 90))
def test_fraction_is_the_exact_covered_area(
    mask: np.ndarray, downsample: float, x: float, y: float, size: float
) -> None:
    tissue = TissueMask(mask, downsample)
    expected = 0.0
    for row, column in zip(*np.nonzero(mask), strict=True):
        left, top = column * downsample, row * downsample
        across = min(x + size, left + downsample) - max(x, left)
        down = min(y + size, top + downsample) - max(y, top)
        expected += max(0.0, across) * max(0.0, down)
    assert tissue.fraction(x, y, size) == pytest.approx(expected / size**2, abs=1e-6)


def test_fractions_of_arrays_equal_single_ones() -> None:
    rng = np.random.default_rng(0)
    tissue = TissueMask(rng.random((30, 40)) > 0.4, 7.3)
    x, y = rng.uniform(-50, 300, (2, 20))
    single = [tissue.fraction(a, b, 33.0) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(tissue.fractions(x, y, 33.0), single)


@given(MASKS, st.floats(0.5, 20))
def test_polygons_are_valid_and_cover_the_mask_exactly(mask: np.ndarray, downsample: float) -> None:
    polygons = TissueMask(mask, downsample).to_polygons()
    assert polygons.is_valid
    assert polygons.area == pytest.approx(mask.sum() * downsample**2)
    if mask.any():
        rows, columns = np.nonzero(mask)
        bounds = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert polygons.bounds == pytest.approx([b * downsample for b in bounds])


def test_area_needs_a_resolution() -> None:
    mask = np.ones((2, 3), dtype=np.bool_)
    assert TissueMask(mask, 4.0, 0.5).area_um2 == pytest.approx(6 * 4)
    assert TissueMask(mask, 4.0).area_um2 is None


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("colon_1.tif", (0.80, 0.95)),
        ("colon_2.tif", (0.88, 0.99)),
        ("cmu-1-small-region.svs", (0.25, 0.42)),
        ("tcga-cr-7395_no-mpp.svs", (0.55, 0.70)),
    ],
)
def test_share_of_tissue_on_real_slides(
    shared_data: Path, name: str, share: tuple[float, float]
) -> None:
    # Ranges read off the overlays of mask and slide.
    with Slide(shared_data / "slides" / name) as slide:
        tissue = tissue_mask(slide)
    assert share[0] < tissue.mask.mean() < share[1]


def test_real_places_of_tissue_and_glass(shared_data: Path) -> None:
    with Slide(shared_data / "slides" / "colon_1.tif") as slide:
        tissue = tissue_mask(slide)
    assert tissue.fraction(2000, 4900, 128) == 0  # the long tear
    assert tissue.fraction(600, 5200, 128) > 0.9  # tumor
    assert tissue.fraction(3100, 6000, 128) > 0.95  # normal crypts
    assert tissue.fraction(-500, 100, 128) == 0


def test_mask_follows_the_frame_of_a_rotated_slide(shared_data: Path) -> None:
    path = shared_data / "slides" / "colon_2.tif"
    with Slide(path) as upright, Slide(path, rotation=270) as turned:
        plain = tissue_mask(upright, downsample=16)
        np.testing.assert_array_equal(tissue_mask(turned, downsample=16).mask, np.rot90(plain.mask))


def test_small_slide_gets_a_mask_of_its_own_size(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    Image.fromarray(section()[0]).save(path)
    with Slide(path, mpp=8.0) as slide:
        tissue = tissue_mask(slide)
    assert tissue.mask.shape == (300, 400)
    assert tissue.downsample == 1.0
    assert overlap(tissue.mask, section()[1]) > 0.97


def test_the_mask_of_a_pyramid_is_made_of_an_overview_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imagecodecs", reason="the extra 'demo' is not installed")
    pixels, inside = section()
    large = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    write_pyramidal_tiff(large, tmp_path / "slide.tif", 1.0)
    read = []
    original = openslide.OpenSlide.read_region

    def watched(
        self: openslide.OpenSlide, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        read.append(round(self.level_downsamples[level]))
        return original(self, location, level, size)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", watched)
    with Slide(tmp_path / "slide.tif") as slide:
        found = tissue_mask(slide, mpp=8.0)
    assert overlap(found.mask, inside) > 0.97
    assert set(read) == {8}
