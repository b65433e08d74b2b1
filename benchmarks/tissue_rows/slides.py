"""Real and drawn slides: paler ones, and those that a rule of two groups parts wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from qprd.slides.slide import Slide, grid_size
from tissue_rows.case import (
    FINER,
    MASK_MPP,
    Case,
    as_pixels,
    coarse,
    density,
    sure_regions,
)

REAL = {
    "colon_1": "colon_1.tif",
    "colon_2": "colon_2.tif",
    "cmu": "cmu-1-small-region.svs",
    "tcga": "tcga-cr-7395_no-mpp.svs",
}
DENSITIES = (1.0, 0.8, 0.6, 0.4, 0.3)
_ASSUMED_MPP = 0.5


@dataclass(frozen=True)
class RealSlide:
    """A slide with what nobody would doubt of it.

    Attributes:
        fine: RGB at `MASK_MPP` / `FINER`, float.
        glass: Color of its glass.
        tissue: On the coarse grid, bool.
        empty: Glass on the coarse grid, bool.
        mpp: Micrometers per level-0 pixel.
    """

    fine: NDArray[np.float64]
    glass: NDArray[np.float64]
    tissue: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    mpp: float

    def at_density(self, factor: float) -> NDArray[np.float64]:
        """The same slide, stained less: fine RGB."""
        dense = density(self.fine, self.glass)
        paler = self.glass * 10 ** (-factor * dense)
        return np.where(dense > 0, paler, self.fine)


@cache
def real_slide(data: Path, name: str) -> RealSlide:
    """One of `REAL`.

    Args:
        data: The folder with ``slides/``.
        name: A key of `REAL`.
    """
    fine, mpp = read_fine(data / "slides" / REAL[name])
    glass = _glass_color(fine)
    tissue, empty = sure_regions(fine, glass)
    dense = coarse(density(fine, glass))
    # Surgeons' green ink on the margins of the section is neither.
    inked = ndimage.binary_dilation(dense[..., 0] > 1.1 * dense[..., 1] + 0.02, iterations=2)
    return RealSlide(fine, glass, tissue & ~inked, empty & ~inked, mpp)


def read_fine(path: Path) -> tuple[NDArray[np.float64], float]:
    """RGB at the finer resolution and micrometers per level-0 pixel."""
    with Slide(path) as slide:
        mpp = slide.mpp or _ASSUMED_MPP
        step = MASK_MPP / FINER / mpp
        columns, rows = grid_size(slide.width, slide.height, step)
        whole = columns // FINER * FINER, rows // FINER * FINER
        return slide.read_downsampled(0, 0, *whole, step).astype(float), mpp


def paler_slides(data: Path) -> Iterator[Case]:
    """The real slides at several densities of their stains, and what is drawn on colon."""
    for name in REAL:
        slide = real_slide(data, name)
        for factor in DENSITIES:
            pixels = as_pixels(coarse(slide.at_density(factor)))
            yield Case(f"{name}, density x {factor:g}", pixels, slide.tissue, slide.empty)
    for name in ("colon_1", "colon_2"):
        slide = real_slide(data, name)
        for factor in (1.0, 0.6, 0.4):
            for label in ("Normal", "Tumor"):
                drawn = _drawn(data, name, label, slide)
                pixels = as_pixels(coarse(slide.at_density(factor)))
                title = f"{name}, drawn {label}, density x {factor:g}"
                yield Case(title, pixels, drawn, np.zeros_like(drawn))


def hard_slides(data: Path) -> Iterator[Case]:
    """The slides of ``hard/``, and a piece without any glass."""
    folder = data / "hard"
    fine, mpp = read_fine(folder / "mass_beside_tissue.tif")
    glass = _glass_color(fine)
    colon, mass = (_box(fine, mpp, box) for box in ((100, 100, 1100, 900), (1390, 0, 2010, 1000)))
    tissue, empty = sure_regions(fine, glass)
    yield Case("mass beside tissue: the tissue", as_pixels(coarse(fine)), tissue & colon, empty)
    yield Case("mass beside tissue: the mass", as_pixels(coarse(fine)), tissue & mass, empty)

    fine, mpp = read_fine(folder / "pale_section_beside_strong.tif")
    tissue, empty = sure_regions(fine, _glass_color(fine))
    left, right = (_box(fine, mpp, (x, 200, x + 1020, 1400)) for x in (200, 1420))
    # The right section is the left one, 1220 level-0 pixels further.
    pale = right & np.roll(tissue & left, round(1220 * mpp / MASK_MPP), axis=1)
    pixels = as_pixels(coarse(fine))
    outside = empty & ~ndimage.binary_dilation(left | right, iterations=2)
    yield Case("pale section beside a strong one: the pale one", pixels, pale, outside)
    yield Case("pale section beside a strong one: the strong one", pixels, tissue & left, outside)

    fine, _ = read_fine(folder / "fragments.tif")
    tissue, empty = sure_regions(fine, _glass_color(fine))
    yield Case("fragments of 130 um", as_pixels(coarse(fine)), tissue, empty)

    fine, mpp = read_fine(folder / "ihc_hdab.tif")
    _, empty = sure_regions(fine, _glass_color(fine))
    square = _box(fine, mpp, (400, 400, 1424, 1424))
    # Pale blue stroma is tissue, too; only the lumina are not.
    stained = square & ~(coarse(fine).min(axis=2) > 230)
    yield Case("H-DAB on glass", as_pixels(coarse(fine)), stained, empty & ~square)

    fine = real_slide(data, "colon_1").fine
    mpp = real_slide(data, "colon_1").mpp
    edge = round(256 * mpp / MASK_MPP)
    row, column = (round(start * mpp / MASK_MPP) for start in (5100, 500))
    tumor = coarse(fine)[row : row + edge, column : column + edge]
    everything = np.ones(tumor.shape[:2], dtype=np.bool_)
    yield Case("256 x 256 px, all tumor", as_pixels(tumor), everything, ~everything)


def _glass_color(fine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Most frequent color of bright pixels, white fill of the scanner left out."""
    bright = fine[(fine.min(axis=2) > 225) & (fine.min(axis=2) < 255)]
    return np.array([np.bincount(bright[:, channel].astype(int)).argmax() for channel in range(3)])


def _box(
    fine: NDArray[np.float64], mpp: float, box: tuple[float, float, float, float]
) -> NDArray[np.bool_]:
    """A rectangle, left, top, right and bottom in level-0 pixels, on the coarse grid."""
    inside = np.zeros((fine.shape[0] // FINER, fine.shape[1] // FINER), dtype=np.bool_)
    left, top, right, bottom = (round(value * mpp / MASK_MPP) for value in box)
    inside[top:bottom, left:right] = True
    return inside


def _drawn(data: Path, name: str, label: str, slide: RealSlide) -> NDArray[np.bool_]:
    """Sure tissue inside the annotations of a class."""
    file = data / "qupath" / "colon" / "annotations" / f"{REAL[name]}.geojson"
    shapes = [
        shapely.geometry.shape(feature["geometry"])
        for feature in json.loads(file.read_text(encoding="utf-8"))["features"]
        if feature["properties"].get("classification", {}).get("name") == label
    ]
    rows, columns = slide.tissue.shape
    step = MASK_MPP / slide.mpp
    x, y = np.meshgrid((np.arange(columns) + 0.5) * step, (np.arange(rows) + 0.5) * step)
    inside: NDArray[np.bool_] = shapely.contains_xy(shapely.union_all(shapes), x, y)
    return inside & slide.tissue
