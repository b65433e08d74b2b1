from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from qprd.demo.slides import write_pyramidal_tiff
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask, tissue_mask
from tests.helpers.stained_image import overlap, section

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 11)))


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
    assert tissue.fractions(x, y, size) == pytest.approx(expected / size**2, abs=1e-6)


def test_fractions_of_arrays_equal_single_ones() -> None:
    rng = np.random.default_rng(0)
    tissue = TissueMask(rng.random((30, 40)) > 0.4, 7.3)
    x, y = rng.uniform(-50, 300, (2, 20))
    single = [tissue.fractions(a, b, 33.0) for a, b in zip(x, y, strict=True)]
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
    assert tissue.fractions(2000, 4900, 128) == pytest.approx(0, abs=1e-9)  # the long tear
    assert tissue.fractions(600, 5200, 128) > 0.9  # tumor
    assert tissue.fractions(3100, 6000, 128) > 0.95  # normal crypts
    assert tissue.fractions(-500, 100, 128) == 0


def test_mask_follows_the_frame_of_a_rotated_slide(shared_data: Path) -> None:
    path = shared_data / "slides" / "colon_2.tif"
    with Slide(path) as upright, Slide(path, rotation=270) as turned:
        plain = tissue_mask(upright, downsample=16)
        assert overlap(tissue_mask(turned, downsample=16).mask, np.rot90(plain.mask)) > 0.99


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
    pytest.importorskip("imagecodecs", reason="the extra 'timm' is not installed")
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
