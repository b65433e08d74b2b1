from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as PILImage
from scipy import ndimage

from qprd.slides.slide import Slide
from qprd.slides.surface import Surface, find_surface, has_dark_background, small_pieces
from qprd.slides.tissue import TissueMask, tissue_mask
from tests.helpers.stained_image import GLASS, Image, Mask, as_image, overlap, section

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 11)))


def surface_of(pixels: Image, *, min_area_px: float = 16, max_gap_px: float = 150) -> np.ndarray:
    return find_surface(pixels, min_area_px=min_area_px, max_gap_px=max_gap_px)[0]


def tissue_of(pixels: Image) -> Mask:
    return surface_of(pixels) == Surface.TISSUE


@pytest.mark.parametrize("density", [1.0, 0.8, 0.6, 0.4, 0.3])
def test_a_section_is_found_however_pale_its_stain(density: float) -> None:
    pixels, inside = section(density=density)
    assert overlap(tissue_of(pixels), inside) > 0.94
    assert tissue_of(pixels)[inside].mean() > 0.99


def test_the_rim_of_a_section_is_no_pixel_wider_than_the_section() -> None:
    pixels, inside = section()
    pixels[:, :200] = np.array(GLASS, np.uint8)
    found = tissue_of(pixels)
    assert not found[:, :200].any()
    assert found[:, 200:][inside[:, 200:]].mean() > 0.99


def test_a_pale_section_is_found_beside_a_strong_one() -> None:
    strong, inside = section()
    pale, _ = section(density=0.35)
    found = tissue_of(np.concatenate([strong, pale], axis=1))
    assert found[:, 400:][inside].mean() > 0.97


def test_a_mass_of_blood_does_not_hide_the_section() -> None:
    pixels, inside = section()
    y, x = np.mgrid[0:300, 0:400]
    mass = np.hypot((x - 200) / 4, y - 150) < 90
    rng = np.random.default_rng(0)
    blood = np.array((205, 70, 100)) + rng.normal(0, 3, pixels.shape)
    bloody = np.where(mass[..., None], as_image(blood), np.array(GLASS, np.uint8))
    found = tissue_of(np.concatenate([pixels, bloody], axis=1))
    assert found[:, :400][inside].mean() > 0.99
    assert found[:, 400:][mass].mean() > 0.99


@pytest.mark.parametrize("color", [(220, 150, 190), (120, 80, 160), (200, 70, 100)])
def test_an_image_of_one_stained_color_is_tissue_throughout(color: tuple[int, int, int]) -> None:
    assert tissue_of(np.full((16, 16, 3), color, dtype=np.uint8)).all()


@pytest.mark.parametrize("density", [0.6, 1.0])
def test_slide_without_glass_is_tissue_throughout(density: float) -> None:
    pixels, _ = section(density=density)
    assert tissue_of(pixels[90:210, 130:270]).mean() > 0.99


@pytest.mark.parametrize("sigma", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("glass", [(255, 254, 255), (242, 240, 243), (243, 240, 222)])
def test_empty_slide_has_no_tissue(sigma: float, glass: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = np.array(glass) + rng.normal(0, sigma, (300, 300, 3))
    shade = 1 - 0.2 * np.mgrid[0:300, 0:300][0][..., None] / 300
    assert not tissue_of(as_image(pixels * shade)).any()


def test_shading_and_seams_change_nothing() -> None:
    pixels, inside = section(density=0.5)
    x = np.arange(400)
    for light in (1 - 0.25 * x / 400, 1 - 0.06 * (x // 40 % 2)):
        assert overlap(tissue_of(as_image(pixels * light[None, :, None])), inside) > 0.94


def test_dust_and_the_edge_of_a_coverslip_are_dark_and_no_tissue() -> None:
    pixels, inside = section()
    light = np.ones(inside.shape)
    light[:, 40:44] = 0.5
    light[10:40, 300:330] = 0.3
    surface = surface_of(as_image(pixels * light[..., None]))
    assert not (surface[:, 36:48] == Surface.TISSUE).any()
    assert (surface[13:37, 303:327] == Surface.DARK).all()
    assert overlap(surface == Surface.TISSUE, inside) > 0.97


INKS = {
    "blue": (30, 60, 180),
    "light blue": (60, 120, 200),
    "navy": (25, 35, 95),
    "green": (30, 140, 70),
    "dark green": (20, 90, 60),
    "turquoise": (40, 160, 170),
    "yellow": (245, 225, 70),
    "orange": (240, 130, 30),
    "red": (200, 30, 45),
    "black": (30, 30, 32),
}


def ringed(ink: tuple[int, int, int]) -> tuple[Image, Mask, Mask]:
    """A section with a ring of ink around it and a stroke beside it; its mask; where the ink is."""
    pixels, inside = section()
    y, x = np.mgrid[0:300, 0:400]
    stroke = np.abs(np.hypot(x - 200, y - 150) - 124) < 9
    stroke[20:280, 20:36] = True
    opacity = ndimage.gaussian_filter(stroke.astype(float), 1.5)[..., None]
    return as_image(pixels * (1 - opacity) + np.array(ink) * opacity), inside, stroke


@pytest.mark.parametrize("name", INKS)
def test_pen_is_no_tissue_and_does_not_hide_what_it_rings(name: str) -> None:
    pixels, inside, ink = ringed(INKS[name])
    surface = surface_of(pixels)
    assert (surface[ink] == Surface.TISSUE).mean() < 0.05
    assert (surface[inside] == Surface.TISSUE).mean() > 0.97
    expected = Surface.BORDER if name == "black" else Surface.PEN
    assert (surface[ink] == expected).mean() > 0.9 or name == "black"


@pytest.mark.parametrize("ink", [(235, 90, 160), (120, 60, 160)], ids=["pink", "purple"])
def test_ink_of_tissues_own_colors_does_not_hide_what_it_rings(ink: tuple[int, int, int]) -> None:
    pixels, inside, _ = ringed(ink)
    assert (surface_of(pixels)[inside] == Surface.TISSUE).mean() > 0.99


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "color",
    [
        (0, 0, 0),
        (60, 60, 60),
        (128, 128, 128),
        (205, 205, 205),
        (255, 255, 255),
        (215, 190, 160),
        (40, 60, 200),
        (200, 60, 150),
    ],
)
def test_a_border_is_no_tissue(color: tuple[int, int, int], compressed: bool) -> None:
    pixels, inside = section()
    framed = np.full((420, 560, 3), color, dtype=np.uint8)
    framed[60:360, 80:480] = pixels
    where, expected = np.ones(framed.shape[:2], np.bool_), np.zeros(framed.shape[:2], np.bool_)
    where[60:360, 80:480], expected[60:360, 80:480] = False, inside
    found = tissue_of(_jpeg(framed, 80) if compressed else framed)
    assert found[where].mean() < 0.05
    assert found[expected].mean() > 0.97


def test_strong_compression_keeps_the_section_and_adds_little() -> None:
    for density in (0.4, 1.0):
        pixels, inside = section(density=density)
        assert overlap(tissue_of(_jpeg(pixels, 30)), inside) > 0.9


def test_compression_does_not_turn_the_glass_around_a_section_into_tissue() -> None:
    pixels, inside = section(density=1.0)
    around = ndimage.binary_dilation(inside, iterations=24)
    around &= ~ndimage.binary_dilation(inside, iterations=4)
    assert tissue_of(_jpeg(pixels, 30))[around].mean() < 0.002


def test_white_fill_is_no_glass_in_more_light() -> None:
    pixels, inside = section(density=1.0)
    near = ndimage.binary_dilation(inside, iterations=24)
    filled = np.where(near[..., None], pixels, np.uint8(255))
    found = tissue_of(_jpeg(filled, 30))
    glass = near & ~ndimage.binary_dilation(inside, iterations=6)
    assert found[inside].all()
    assert found[glass].mean() < 0.01


def test_black_slide_has_no_tissue() -> None:
    surface = surface_of(np.zeros((50, 60, 3), dtype=np.uint8))
    assert (surface == Surface.BORDER).all()


def test_specks_are_small_and_small_gaps_close() -> None:
    pixels, _ = section()
    pixels[10:13, 10:13] = (150, 60, 150)
    pixels[145:153, 195:203] = GLASS
    pixels[100:130, 150:180] = GLASS
    surface = surface_of(pixels, min_area_px=60)
    assert surface[11, 11] == Surface.SMALL
    assert (surface[145:153, 195:203] == Surface.TISSUE).all()
    assert (surface[105:125, 155:175] == Surface.GLASS).all()
    assert surface_of(pixels, min_area_px=5)[11, 11] == Surface.TISSUE


@given(MASKS, st.integers(0, 6))
def test_small_pieces_are_the_pieces_below_a_size(mask: Mask, least: int) -> None:
    small = small_pieces(mask, least)
    assert not (small & ~mask).any()
    labels, count = ndimage.label(mask)
    for label in range(1, count + 1):
        piece = labels == label
        assert small[piece].all() == small[piece].any() == (piece.sum() < least)


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_every_image_has_a_surface(pixels: Image) -> None:
    surface, *_ = find_surface(pixels, min_area_px=2, max_gap_px=2)
    assert surface.shape == pixels.shape[:2]
    assert set(np.unique(surface)) <= {int(kind) for kind in Surface}


@given(st.integers(0, 3), st.booleans())
def test_turning_an_image_turns_its_tissue(quarters: int, mirrored: bool) -> None:
    pixels, _ = section(density=0.6)

    def turn(image: np.ndarray) -> np.ndarray:
        turned = np.rot90(image, quarters)
        return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)

    assert overlap(tissue_of(turn(pixels)), turn(tissue_of(pixels))) > 0.99


class TestHardSlides:
    """Slides on which a threshold between the two largest groups lost tissue."""

    def test_tissue_beside_a_mass_is_kept(self, shared_data: Path) -> None:
        tissue = _mask(shared_data / "hard" / "mass_beside_tissue.tif")
        assert tissue.fractions(100, 100, 300) > 0.97
        assert tissue.fractions(200, 500, 300) > 0.97
        assert tissue.fractions(1550, 350, 300) > 0.99
        assert tissue.fractions(1150, 100, 200) == 0.0

    def test_a_pale_section_is_kept_as_the_strong_one(self, shared_data: Path) -> None:
        tissue = _mask(shared_data / "hard" / "pale_section_beside_strong.tif")
        x, y = np.meshgrid(np.arange(200, 1220, 64), np.arange(200, 1400, 64))
        strong, pale = (tissue.fractions(x + shift, y, 64) for shift in (0, 1220))
        assert pale.sum() > 0.97 * strong.sum()

    def test_fragments_are_kept(self, shared_data: Path) -> None:
        tissue = _mask(shared_data / "hard" / "fragments.tif")
        found = [
            tissue.fractions(x + 80, y + 80, 100) > 0.97
            for x in (100, 500, 900, 1300)
            for y in (700, 1050, 1400)
        ]
        assert all(found)

    def test_brown_and_pale_blue_tissue_is_kept(self, shared_data: Path) -> None:
        tissue = _mask(shared_data / "hard" / "ihc_hdab.tif")
        assert tissue.fractions(400, 400, 1024) > 0.90
        assert tissue.fractions(0, 0, 380) == 0.0

    @pytest.mark.parametrize("name", ["colon_1.tif", "colon_2.tif"])
    @pytest.mark.parametrize("density", [0.6, 0.4])
    def test_a_paler_stain_loses_nothing(
        self, shared_data: Path, name: str, density: float
    ) -> None:
        with Slide(shared_data / "slides" / name) as slide:
            pixels, _ = slide.thumbnail(600)
        glass = np.array((242.0, 239.0, 242.0))
        light = np.minimum(pixels / glass, 1.0)
        paler = as_image(np.where(pixels < glass, glass * light**density, pixels))
        full = tissue_of(pixels)
        assert tissue_of(paler)[full].mean() > 0.97

    def test_a_blue_stain_is_no_ink(self, shared_data: Path) -> None:
        with Slide(shared_data / "slides" / "tcga-cr-7395_no-mpp.svs") as slide:
            pixels, _ = slide.thumbnail(280)
        # Green and red change places: everything absorbs red most, in the texture of tissue.
        assert tissue_of(pixels[..., [1, 0, 2]])[tissue_of(pixels)].mean() > 0.97

    def test_a_pink_ring_leaves_the_tissue_inside_it(self, shared_data: Path) -> None:
        with Slide(shared_data / "slides" / "tcga-cr-7395_no-mpp.svs") as slide:
            pixels, _ = slide.thumbnail(280)
        before = tissue_of(pixels)
        y, x = np.indices(before.shape)
        ring = np.abs(np.hypot(x - 140, y - 110) - 100) < 8
        pixels[ring] = (235, 90, 160)
        assert tissue_of(pixels)[before & ~ring].mean() > 0.97


def _mask(path: Path) -> TissueMask:
    with Slide(path) as slide:
        return tissue_mask(slide)


def _jpeg(pixels: Image, quality: int) -> Image:
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PILImage.open(file))


@pytest.mark.parametrize("density", [0.6, 1.0])
def test_on_a_slide_in_gray_tissue_is_what_is_darker_than_glass(density: float) -> None:
    pixels, inside = section(density=density)
    luma = (pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    gray = np.repeat(luma[..., None], 3, axis=2)
    assert overlap(tissue_of(gray), inside) > 0.9


@pytest.mark.parametrize("background", [(0, 0, 0), (12, 10, 30), (40, 40, 40)])
def test_a_dark_background_is_known(background: tuple[int, int, int]) -> None:
    _, inside = section()
    pixels = np.where(inside[..., None], (30, 60, 200), background).astype(np.uint8)
    surface, glass = find_surface(pixels)
    assert has_dark_background(pixels, glass)
    assert (surface[inside] == Surface.TISSUE).mean() > 0.9


@pytest.mark.parametrize("density", [0.4, 1.0])
def test_stained_sections_have_no_dark_background_with_or_without_glass(density: float) -> None:
    pixels, _ = section(density=density)
    for part in (pixels, pixels[90:210, 130:270], np.full_like(pixels, 255)):
        assert not has_dark_background(part, find_surface(part)[1])
