from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.slides.frame import Rotation
from qprd.slides.slide import Slide

WIDTH, HEIGHT = 301, 203


def ramp() -> np.ndarray:
    """Linear in x and y: any symmetric filter, at any scale, returns the value at its center."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 0.8, y, (x + y) * 0.45], axis=-1).round().astype(np.uint8)


@pytest.fixture(scope="session")
def ramp_png(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "ramp.png"
    Image.fromarray(ramp()).save(path)
    return path


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, (30, 50, 300, 401)])
def test_frame_starts_at_the_openslide_bounds_then_crop_then_rotation(
    scn: tuple[Path, np.ndarray],
    rotation: Rotation,
    crop: tuple[int, int, int, int] | None,
) -> None:
    path, shown = scn
    if crop:
        shown = shown[crop[1] : crop[1] + crop[3], crop[0] : crop[0] + crop[2]]
    shown = np.rot90(shown, k=-(rotation // 90))
    with Slide(path, rotation=rotation, crop=crop) as slide:
        assert (slide.height, slide.width) == shown.shape[:2]
        assert slide.mpp == pytest.approx(0.5)
        np.testing.assert_array_equal(
            slide.read_region(0, 0, slide.width, slide.height, None), shown
        )
        np.testing.assert_array_equal(slide.read_region(7, 11, 40, 30, 0.5), shown[11:41, 7:47])
        # What the crop hides is white, not the pixels beside it.
        assert (slide.read_region(-8, -8, 8, 8, None) == 255).all()
        beyond = slide.read_region(slide.width - 4, slide.height - 4, 8, 8, None)
        np.testing.assert_array_equal(beyond[:4, :4], shown[-4:, -4:])
        assert (beyond[4:] == 255).all()


def test_no_crop_slides_keep_the_whole_scan_area(scn: tuple[Path, np.ndarray]) -> None:
    path, pixels = scn
    with Slide(path, use_bounds=False) as slide:
        assert (slide.width, slide.height) == (1200, 1600)
        np.testing.assert_array_equal(slide.read_region(96, 160, 50, 60, None), pixels[:60, :50])


@settings(max_examples=60)
@given(
    x=st.floats(40, 100),
    y=st.floats(40, 60),
    downsample=st.floats(0.3, 9),
    rotation=st.sampled_from([0, 90, 180, 270]),
)
def test_pixels_lie_where_they_should_at_any_scale_and_position(
    ramp_png: Path, x: float, y: float, downsample: float, rotation: Rotation
) -> None:
    size = max(1, int(60 / downsample))
    with Slide(ramp_png, rotation=rotation, mpp=0.5) as slide:
        read = slide.read_region(x, y, size, size, downsample * 0.5).astype(float)
        center = (np.arange(size) + 0.5) * downsample - 0.5
        fx, fy = np.meshgrid(x + center, y + center)
        if rotation == 90:
            fx, fy = fy, HEIGHT - 1 - fx
        elif rotation == 180:
            fx, fy = WIDTH - 1 - fx, HEIGHT - 1 - fy
        elif rotation == 270:
            fx, fy = WIDTH - 1 - fy, fx
    expected = np.stack([fx * 0.8, fy, (fx + fy) * 0.45], axis=-1)
    # Half a gray level each from rounding the ramp and the result; 0.3 px off would show.
    assert np.abs(read - expected).max() <= 1.05
    assert np.abs((read - expected).mean(axis=(0, 1))).max() <= 0.6


def test_pyramid_levels_align_with_averaged_level_0(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (17, 23), dtype=np.uint8))
    smooth = coarse.resize((1443, 1075), Image.Resampling.BICUBIC)
    blobs = np.asarray(smooth.convert("RGB"))
    path = tmp_path / "pyramid.tif"
    write_pyramidal_tiff(blobs, path, 0.25)
    with Slide(path) as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-3)
        for factor in (2, 3, 4, 8):
            width, height = 1443 // factor - 3, 1075 // factor - 3
            mean = blobs[factor : factor * (height + 1), factor : factor * (width + 1)]
            mean = mean.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))

            def difference(
                x: float, mean: NDArray[np.float64] = mean, factor: float = factor
            ) -> float:
                height, width = mean.shape[:2]
                read = slide.read_region(x, factor, width, height, 0.25 * factor)
                return float(np.abs(read - mean).mean())

            here = difference(factor)
            assert here < 1.5  # JPEG and a filter a little wider than the box
            assert here < difference(factor - 2)
            assert here < difference(factor + 2)


def test_a_region_read_in_blocks_equals_its_parts(shared_data: Path) -> None:
    with Slide(shared_data / "slides" / "cmu-1-small-region.svs") as slide:
        whole = slide.read_downsampled(0.5, -3.25, 2500, 2400, 1.21)
        part = slide.read_downsampled(0.5 + 1900 * 1.21, -3.25 + 2000 * 1.21, 40, 30, 1.21)
        assert np.abs(whole[2000:2030, 1900:1940].astype(int) - part).max() <= 1
        middle = slide.read_downsampled(0.5 + 1000 * 1.21, -3.25 + 1660 * 1.21, 60, 50, 1.21)
        assert np.abs(whole[1660:1710, 1000:1060].astype(int) - middle).max() <= 1


@pytest.mark.parametrize(
    ("name", "size", "mpp"),
    [
        ("colon_1.tif", (3584, 8448), 0.5015),
        ("colon_2.tif", (2048, 8448), 0.5015),
        ("cmu-1-small-region.svs", (2220, 2967), 0.499),
        ("tcga-cr-7395_no-mpp.svs", (4443, 3567), None),
    ],
)
def test_real_slides_open_with_size_and_resolution(
    shared_data: Path, name: str, size: tuple[int, int], mpp: float | None
) -> None:
    with Slide(shared_data / "slides" / name) as slide:
        assert (slide.width, slide.height) == size
        assert slide.mpp == (mpp if mpp is None else pytest.approx(mpp, rel=1e-3))
        pixels, downsample = slide.thumbnail(400)
        assert max(pixels.shape[:2]) == 400
        assert downsample == pytest.approx(max(size) / 400)
        assert 20 < pixels.mean() < 245


def test_rotated_thumbnail_is_the_rotated_thumbnail(shared_data: Path) -> None:
    path = shared_data / "slides" / "colon_2.tif"
    with Slide(path) as upright, Slide(path, rotation=90) as turned:
        # 2048 and 8448 divide by 16: no partial pixel on any side.
        plain, _ = upright.thumbnail(528)
        np.testing.assert_array_equal(turned.thumbnail(528)[0], np.rot90(plain, k=-1))


def test_without_resolution_reading_by_mpp_names_the_option(shared_data: Path) -> None:
    path = shared_data / "slides" / "tcga-cr-7395_no-mpp.svs"
    with Slide(path) as slide:
        assert slide.read_region(0, 0, 16, 16, None).shape == (16, 16, 3)
        with pytest.raises(QprdError, match="--assume-mpp"):
            slide.read_region(0, 0, 16, 16, 0.5)
    with Slide(path, mpp=0.25) as slide:
        assert slide.read_region(0, 0, 16, 16, 0.5).shape == (16, 16, 3)


def test_given_resolution_wins_over_the_file(shared_data: Path) -> None:
    with Slide(shared_data / "slides" / "colon_1.tif", mpp=0.25) as slide:
        assert slide.mpp == 0.25


@pytest.mark.parametrize(
    "name", ["missing.svs", "text.svs", "empty.tif", "cut.png", "", "gray.tif"]
)
def test_what_is_no_slide_is_refused_with_a_fix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    if name == "text.svs":
        path.write_text("not a slide")
    elif name == "empty.tif":
        path.touch()
    elif name == "cut.png":
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif name == "gray.tif":
        Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(path)
    with pytest.raises(QprdError) as caught:
        Slide(path)
    assert caught.value.fix
    assert caught.value.where == str(path)


def test_real_broken_slide_is_refused(shared_data: Path) -> None:
    with pytest.raises(QprdError, match="not a slide"):
        Slide(shared_data / "slides" / "broken.svs")


def test_slide_cut_off_in_the_middle_fails_with_a_qprd_error(
    shared_data: Path, tmp_path: Path
) -> None:
    whole = (shared_data / "slides" / "cmu-1-small-region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    # Garbage in the middle of the tiles, with the directory behind them intact.
    middle = len(whole) // 2
    path.write_bytes(whole[: middle - 200_000] + bytes(400_000) + whole[middle + 200_000 :])
    with pytest.raises(QprdError, match="damaged"), Slide(path) as slide:
        slide.read_region(0, 0, slide.width, slide.height, None)


def test_print_resolution_of_an_image_is_not_taken_for_mpp(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(ramp()).save(path, dpi=(72, 72))
    with Slide(path) as slide:
        assert slide.mpp is None
        np.testing.assert_array_equal(slide.read_region(0, 0, WIDTH, HEIGHT, None), ramp())


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    path = tmp_path / "alpha.png"
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[4:, :, 3] = 255
    Image.fromarray(pixels).save(path)
    with Slide(path) as slide:
        read = slide.read_region(0, 0, 8, 8, None)
    assert (read[:4] == 255).all()
    assert (read[4:] == 0).all()


def test_threads_read_the_same_as_one(shared_data: Path) -> None:
    with Slide(shared_data / "slides" / "colon_2.tif") as slide:
        places = [(i * 37 % 1900, i * 211 % 8000) for i in range(60)]
        expected = [slide.read_region(x, y, 64, 64, 0.7) for x, y in places]
        barrier = threading.Barrier(4)

        def read(start: int) -> list[np.ndarray]:
            barrier.wait()
            return [slide.read_region(x, y, 64, 64, 0.7) for x, y in places[start::4]]

        with ThreadPoolExecutor(4) as pool:
            for start, result in enumerate(pool.map(read, range(4))):
                np.testing.assert_array_equal(result, expected[start::4])


@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.0005, 352.8, 1e300, float("nan"), float("inf")])
@pytest.mark.parametrize("given", ["mpp", "default_mpp"])
def test_a_resolution_that_no_microscope_has_is_refused(
    tmp_path: Path, mpp: float, given: str
) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(ramp()).save(path)
    with pytest.raises(QprdError, match="impossible"):
        Slide(path, **{given: mpp})  # type: ignore[arg-type]


def test_a_default_resolution_counts_only_where_nobody_says(tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.fromarray(ramp()).save(path)
    with Slide(path, default_mpp=0.5) as slide:
        assert slide.mpp == 0.5
    with Slide(path, mpp=0.25, default_mpp=0.5) as slide:
        assert slide.mpp == 0.25


@pytest.mark.parametrize(("mpp_y", "square"), [(0.51, True), (1.0, False)])
def test_pixels_that_are_not_square_are_refused(tmp_path: Path, mpp_y: float, square: bool) -> None:
    path = tmp_path / "slide.tif"
    resolution = (1e4 / 0.5, 1e4 / mpp_y)
    pixels = np.zeros((256, 256, 3), np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), resolution=resolution, resolutionunit="CENTIMETER"
    )
    if square:
        with Slide(path) as slide:
            assert slide.mpp == pytest.approx((0.5 + mpp_y) / 2, rel=1e-3)
    else:
        with pytest.raises(QprdError, match="not square"):
            Slide(path)
