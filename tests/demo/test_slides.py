from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from qprd.demo.slides import SyntheticSlide, draw_slide, write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.slides.slide import Slide
from qprd.slides.surface import Surface, find_surface
from qprd.slides.tissue import TissueMask, tissue_mask

SIZE = (1200, 1400)


@pytest.fixture(scope="module")
def drawn() -> SyntheticSlide:
    return draw_slide(7, *SIZE, tumor_nests=3)


def test_same_seed_same_slide(drawn: SyntheticSlide) -> None:
    again = draw_slide(7, *SIZE, tumor_nests=3)
    np.testing.assert_array_equal(drawn.image, again.image)
    assert drawn.tumor == again.tumor
    assert drawn.normal == again.normal


def test_stain_differs_between_slides(drawn: SyntheticSlide) -> None:
    colors = [
        slide.image[find_surface(slide.image)[0] == Surface.TISSUE].mean(axis=0)
        for slide in (drawn, *(draw_slide(seed, 500, 500, tumor_nests=0) for seed in (1, 2, 3)))
    ]
    distances = [np.abs(a - b).max() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 1
    assert max(distances) > 6


def test_regions_are_valid_apart_and_inside(drawn: SyntheticSlide) -> None:
    assert 1 <= len(drawn.tumor) <= 3
    assert drawn.normal
    tumor, normal = shapely.union_all(drawn.tumor), shapely.union_all(drawn.normal)
    assert all(region.is_valid for region in (*drawn.tumor, *drawn.normal))
    assert tumor.distance(normal) > 20
    assert shapely.box(0, 0, *SIZE).contains(shapely.union_all([tumor, normal]))


def test_no_nests_means_no_tumor() -> None:
    slide = draw_slide(3, 700, 700, tumor_nests=0)
    assert slide.tumor == ()
    assert slide.normal
    assert slide.image.shape == (700, 700, 3)


def test_tumor_is_denser_but_not_told_by_mean_color_alone(drawn: SyntheticSlide) -> None:
    """Lymphoid aggregates of normal tissue are as dark as tumor, patch by patch."""
    red = drawn.image[..., 0].astype(float)
    size = 64

    def means(region: shapely.Geometry) -> np.ndarray:
        return np.array(
            [
                red[y : y + size, x : x + size].mean()
                for y in range(0, SIZE[1] - size, 32)
                for x in range(0, SIZE[0] - size, 32)
                if region.contains(shapely.box(x, y, x + size, y + size))
            ]
        )

    tumor, normal = (means(shapely.union_all(r)) for r in (drawn.tumor, drawn.normal))
    assert len(tumor) > 20
    assert len(normal) > 100
    assert np.median(tumor) < np.median(normal)
    assert (normal < np.median(tumor)).sum() >= 3


@pytest.fixture(scope="module")
def tiff(drawn: SyntheticSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("imagecodecs")
    path = tmp_path_factory.mktemp("synthetic") / "slide.tif"
    write_pyramidal_tiff(drawn.image, path, drawn.mpp)
    return path


def test_written_slide_opens_with_levels_resolution_and_pixels(
    drawn: SyntheticSlide, tiff: Path
) -> None:
    import openslide

    with openslide.OpenSlide(tiff) as handle:
        assert handle.properties["openslide.vendor"] == "generic-tiff"
        assert handle.level_dimensions == ((1200, 1400), (600, 700), (300, 350))
    with Slide(tiff) as slide:
        assert slide.mpp == pytest.approx(0.5, rel=1e-3)
        read = slide.read_region(0, 0, *SIZE, None)
        assert np.abs(read.astype(int) - drawn.image).mean() < 4  # JPEG


def test_tissue_is_found_on_the_written_slide(drawn: SyntheticSlide, tiff: Path) -> None:
    with Slide(tiff) as slide:
        tissue: TissueMask = tissue_mask(slide)
    polygons = tissue.to_polygons()
    for nest in drawn.tumor:
        assert polygons.intersection(nest).area > 0.97 * nest.area
    assert tissue.fractions(0, 0, 40) == 0
    assert 0.2 < tissue.mask.mean() < 0.9


def test_missing_extra_is_named(
    drawn: SyntheticSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(QprdError, match=r"qprd\[timm\]"):
        write_pyramidal_tiff(drawn.image, tmp_path / "slide.tif", 0.5)
