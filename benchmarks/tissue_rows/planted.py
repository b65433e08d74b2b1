"""Pen, borders, noise and shading laid over real slides, and slides of unusual kinds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tissue_rows.case import Case, as_pixels, coarse, density
from tissue_rows.slides import RealSlide, real_slide

#: Ink as it dries on the glass, and whether tissue has such colors.
INKS = {
    "black": ((30, 30, 32), False),
    "blue": ((30, 60, 180), False),
    "light blue": ((60, 120, 200), False),
    "navy": ((25, 35, 95), False),
    "green": ((30, 140, 70), False),
    "dark green": ((20, 90, 60), False),
    "turquoise": ((40, 160, 170), False),
    "yellow": ((245, 225, 70), False),
    "orange": ((240, 130, 30), False),
    "red": ((200, 30, 45), True),
    "pink": ((235, 90, 160), True),
    "purple": ((120, 60, 160), True),
}
BORDERS = {
    "black": (0, 0, 0),
    "dark gray": (60, 60, 60),
    "gray": (128, 128, 128),
    "light gray": (205, 205, 205),
    "white": (255, 255, 255),
    "blue": (40, 60, 200),
    "green": (60, 160, 90),
    "beige": (215, 190, 160),
    "magenta": (200, 60, 150),
}
_PEN_WIDTH_PX = 50
_BORDER_PX = 60
_MARGIN_PX = 150
_BLANK_SHAPE = (400, 500)

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def pen(data: Path) -> Iterator[Case]:
    """A ring and a stroke across the section, in every ink, on a real slide with wide glass."""
    pixels, tissue, empty, glass = _on_glass(real_slide(data, "tcga"))
    amount = _ring_and_stroke(tissue.shape)
    ink_area, near = amount > 0.5, ndimage.binary_dilation(amount > 0.02, iterations=2)
    for name, (color, own_color) in INKS.items():
        ink = np.log10(glass / np.maximum(color, 1.0))
        marked = pixels * 10 ** (-np.maximum(ink, 0) * amount[..., None])
        yield Case(
            f"pen, {name}",
            as_pixels(marked),
            tissue & ~near,
            ink_area | (empty & ~near),
            "ink, glass",
            own_color,
        )
        yield Case(
            f"pen, {name}: ink alone", as_pixels(marked), tissue & ~near, ink_area, "ink", own_color
        )


def borders(data: Path) -> Iterator[Case]:
    """Flat borders around a real slide, as they are and after JPEG compression."""
    slide = real_slide(data, "tcga")
    pixels = coarse(slide.fine)
    tissue, empty = (np.pad(mask, _BORDER_PX) for mask in (slide.tissue, slide.empty))
    border = np.pad(np.zeros(slide.tissue.shape, np.bool_), _BORDER_PX, constant_values=True)
    frame = ((_BORDER_PX, _BORDER_PX), (_BORDER_PX, _BORDER_PX))
    for name, color in BORDERS.items():
        channels = [np.pad(pixels[..., i], frame, constant_values=color[i]) for i in range(3)]
        framed = as_pixels(np.stack(channels, axis=-1))
        yield Case(f"border, {name}", framed, tissue, border | empty, "border, glass")
        if name in ("black", "gray", "beige"):
            noisy = _jpeg(framed, 80)
            yield Case(f"border, {name}, JPEG 80", noisy, tissue, border | empty, "border, glass")


def noise(data: Path) -> Iterator[Case]:
    """JPEG compression at quality 30 of the overview, noise of a camera, shading of a scanner."""
    rng = np.random.default_rng(0)
    for name in ("colon_1", "cmu", "tcga"):
        slide = real_slide(data, name)
        for factor in (1.0, 0.4):
            pixels = coarse(slide.at_density(factor))
            title, known = f"{name}, density x {factor:g}", (slide.tissue, slide.empty)
            yield Case(f"{title}, JPEG 30", _jpeg(as_pixels(pixels), 30), *known)
            filled = (pixels.min(axis=2) >= 254)[..., None]
            grainy = np.where(filled, pixels, pixels + rng.normal(0, 6, pixels.shape))
            yield Case(f"{title}, noise of 6 levels", as_pixels(grainy), *known)
            for kind, shade in _shades(pixels.shape[:2]).items():
                yield Case(
                    f"{title}, {kind}",
                    as_pixels(np.where(filled, pixels, pixels * shade[..., None])),
                    *known,
                )


def blank() -> Iterator[Case]:
    """Glass without tissue."""
    rng = np.random.default_rng(0)
    nothing = np.zeros(_BLANK_SHAPE, dtype=np.bool_)
    for name, color in {
        "white": (255, 255, 255),
        "gray": (225, 226, 222),
        "yellowish": (243, 240, 222),
        "dim": (170, 171, 168),
    }.items():
        glass = _glass(_BLANK_SHAPE, np.array(color, dtype=float), rng)
        yield Case(f"blank slide, {name} glass", as_pixels(glass), nothing, ~nothing)
        if name == "gray":
            for kind, shade in _shades(_BLANK_SHAPE).items():
                shaded = as_pixels(glass * shade[..., None])
                yield Case(f"blank slide, {kind}", shaded, nothing, ~nothing)
            noisy = as_pixels(glass + rng.normal(0, 8, glass.shape))
            yield Case("blank slide, noise of 8 levels", noisy, nothing, ~nothing)
            marks, where = _dirt(_BLANK_SHAPE, rng)
            dirty = as_pixels(glass * marks[..., None])
            yield Case("blank slide, coverslip edge, dust, scratches", dirty, nothing, where)


def unusual(data: Path) -> Iterator[Case]:
    """Other stains, other light, other tissue."""
    slide = real_slide(data, "tcga")
    pixels, tissue, empty, glass = _on_glass(slide)
    rng = np.random.default_rng(0)
    known = (tissue, empty)
    dense = density(pixels, glass)

    def stained(hematoxylin: float, eosin: float) -> NDArray[np.uint8]:
        stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
        amounts = np.maximum(dense @ np.linalg.inv(stains), 0) * (hematoxylin, eosin, 1.0)
        return as_pixels(glass * 10 ** -(amounts @ stains))

    yield Case("hematoxylin alone", stained(1.0, 0.0), *known)
    yield Case("eosin alone", stained(0.0, 1.0), *known)
    yield Case("dim lamp, all x .6", as_pixels(pixels * 0.6), *known)
    yield Case("yellowish light", as_pixels(pixels * (1.0, 0.97, 0.88)), *known)
    yield Case("bluish light", as_pixels(pixels * (0.92, 0.97, 1.0)), *known)
    marks, where = _dirt(tissue.shape, rng)
    dirty = as_pixels(pixels * marks[..., None])
    yield Case("coverslip edge, dust, scratches", dirty, tissue & ~where, empty)
    y, x = np.indices(tissue.shape)
    lake = np.hypot((y - 60) / 50, (x - 280) / 160) < 1
    bloody = np.where(lake[..., None], (196, 62, 78), pixels)
    bloody = as_pixels(bloody + rng.normal(0, 3, bloody.shape))
    yield Case("lake of blood beside the tissue", bloody, tissue | lake, empty & ~lake)

    name = "colon_1"
    real = real_slide(data, name)
    for factor in (1.0, 0.4, 0.3):
        piece = coarse(real.at_density(factor))[150:215, 10:75]
        everything = np.ones(piece.shape[:2], dtype=np.bool_)
        title = f"colon, all tissue, density x {factor:g}"
        yield Case(title, as_pixels(piece), everything, ~everything)

    fat, inside, outside = _adipose(rng)
    yield Case("fat: its meshes filled", fat, inside, outside)


def _on_glass(slide: RealSlide) -> tuple[Floats, Bools, Bools, Floats]:
    """A slide amid wide glass of its own color: pixels, tissue, glass, its color."""
    glass = slide.glass.astype(float)
    pixels = coarse(slide.fine)
    shape = tuple(size + 2 * _MARGIN_PX for size in pixels.shape[:2])
    canvas = _glass(shape, glass, np.random.default_rng(0))
    inner = (slice(_MARGIN_PX, -_MARGIN_PX),) * 2
    # Fill of the scanner becomes glass, too.
    filled = pixels.min(axis=2) >= 254
    canvas[inner] = np.where(filled[..., None], canvas[inner], pixels)
    tissue, empty = np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    tissue[inner], empty[inner] = slide.tissue, slide.empty
    return canvas, tissue, empty, glass


def _glass(shape: tuple[int, ...], color: Floats, rng: np.random.Generator) -> Floats:
    """Glass with the noise of a camera, much of which the averaging to `MASK_MPP` takes."""
    return color + rng.normal(0, 1.0, (*shape[:2], 3))


def _ring_and_stroke(shape: tuple[int, ...]) -> Floats:
    """How much ink there is, 0..1: a ring around most of the image, a stroke through its middle."""
    y, x = np.indices(shape[:2], dtype=float)
    height, width = shape[:2]
    half = _PEN_WIDTH_PX / 2
    radius = np.hypot(y - height / 2, (x - width / 2) * height / width)
    ring = np.abs(radius - height / 2 + _PEN_WIDTH_PX) < half
    stroke = (np.abs(y - 0.6 * x - 40) < half * 0.6) & (x > 0.3 * width) & (x < 0.6 * width)
    streaks = 1 + 0.08 * np.sin(radius / 3) + 0.04 * np.sin(x / 5)
    amount: Floats = ndimage.gaussian_filter((ring | stroke).astype(float), 1.5) * streaks
    return amount


def _shades(shape: tuple[int, ...]) -> dict[str, Floats]:
    y, x = np.indices(shape[:2], dtype=float)
    height, width = shape[:2]
    from_center = np.hypot(y / height - 0.5, x / width - 0.5) / np.hypot(0.5, 0.5)
    return {
        "gray gradient to .8": 1 - 0.2 * x / width,
        "dark corners of .75": 1 - 0.25 * from_center**2,
        "stripes of .94": 1 - 0.06 * (x // 40 % 2),
    }


def _dirt(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Floats, Bools]:
    """What dims the light without coloring it, and where that is."""
    y, x = np.indices(shape[:2], dtype=float)
    light = np.ones(shape[:2])
    light[:, int(0.1 * shape[1]) :] *= 0.97  # under the coverslip
    light[np.abs(x - 0.1 * shape[1]) < 3] *= 0.6  # its edge
    for _ in range(12):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        light[np.hypot(y - row, x - column) < rng.uniform(2, 9)] *= 0.5
    light[np.abs(y - 0.3 * x - 10) < 1.5] *= 0.7
    return light, light < 0.9


def _adipose(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Bools, Bools]:
    """Meshes of 70 um with thin pink walls, on glass."""
    shape = (1200, 1600)
    seeds = rng.uniform(0, 1, (900, 2)) * (800, 1000) + (200, 300)
    inside = np.zeros(shape, np.bool_)
    inside[200:1000, 300:1300] = True
    marks = np.ones(shape, np.bool_)
    marks[seeds[:, 0].astype(int), seeds[:, 1].astype(int)] = False
    nearest = ndimage.distance_transform_edt(marks, return_distances=False, return_indices=True)
    cell = nearest[0] * shape[1] + nearest[1]
    walls = np.zeros(shape, np.bool_)
    walls[1:] |= cell[1:] != cell[:-1]
    walls[:, 1:] |= cell[:, 1:] != cell[:, :-1]
    walls = ndimage.binary_dilation(walls) & inside
    fine = np.where(walls[..., None], (220, 150, 190), (243.0, 241.0, 243.0))
    fine = fine + rng.normal(0, 2, fine.shape)
    within = coarse(inside.astype(float)) == 1
    outside = ndimage.binary_dilation(within, iterations=3)
    return as_pixels(coarse(fine)), ndimage.binary_erosion(within, iterations=3), ~outside


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
