"""An image of which is known where tissue lies, and how well a rule finds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qprd.slides.surface import small_pieces

#: Micrometers per pixel at which all rules see the images: 1.25x, TIAToolbox's default.
MASK_MPP = 8.0

#: Images are composed at this times the resolution of the mask, where stains mix little.
FINER = 4

#: Optical densities in units of this slide's own glass: what nobody would call glass, or tissue.
_SURE_TISSUE, _SURE_GLASS = 0.10, 0.03

#: Smaller gaps in tissue belong to it: lumina, vessels, fat cells.
_LUMEN_UM2 = 10_000.0


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        name: What it shows.
        pixels: uint8 RGB, (h, w, 3), at `MASK_MPP`.
        tissue: What must be kept, bool, (h, w).
        foreign: What must not be taken: glass, ink, border; bool, (h, w). What is in neither is
            not judged, such as the rims of tissue.
        foreign_name: What it is.
        own_color: The foreign matter has a color that tissue has; no rule of colors tells them
            apart.
    """

    name: str
    pixels: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    foreign: NDArray[np.bool_]
    foreign_name: str = "glass"
    own_color: bool = False


@dataclass(frozen=True)
class Found:
    """What a rule makes of an image.

    Attributes:
        kept: Share of the tissue that it finds; None if the image has none.
        taken: Share of the foreign matter that it takes for tissue; None if there is none.
    """

    kept: float | None
    taken: float | None

    @property
    def quality(self) -> float:
        """Tissue kept less foreign matter taken, at most 1; what the image lacks is no fault."""
        return (1.0 if self.kept is None else self.kept) - (self.taken or 0.0)


def judge(mask: NDArray[np.bool_], case: Case) -> Found:
    """Compare a mask with what is known of the image."""
    return Found(_share(mask, case.tissue), _share(mask, case.foreign))


def coarse(fine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of squares of `FINER` pixels; rows and columns that fill none are cut off."""
    rows, columns = (size // FINER for size in fine.shape[:2])
    squares = fine[: rows * FINER, : columns * FINER].reshape(rows, FINER, columns, FINER, -1)
    mean: NDArray[np.float64] = squares.mean(axis=(1, 3))
    return mean if fine.ndim == 3 else mean[..., 0]


def as_pixels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Rounded to 0..255."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def density(pixels: NDArray[np.float64], glass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Optical density of each channel against the slide's glass, at least 0."""
    ratio: NDArray[np.float64] = np.log10(np.maximum(glass, 1.0) / np.maximum(pixels, 1.0))
    return np.maximum(ratio, 0.0)


def sure_regions(
    fine: NDArray[np.float64], glass: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tissue and glass of an ordinary slide that nobody would doubt, on the coarse grid.

    Args:
        fine: RGB of the slide at its own density.
        glass: Color of its glass.

    Returns:
        Where the strongest channel is denser than `_SURE_TISSUE` and where it is less dense than
        `_SURE_GLASS`, each without its rim of one pixel. Lumina of less than `_LUMEN_UM2` are
        neither.
    """
    strongest = coarse(density(fine, glass).max(axis=2))
    empty = strongest < _SURE_GLASS
    empty &= ~small_pieces(empty, _LUMEN_UM2 / MASK_MPP**2)
    return _inner(strongest > _SURE_TISSUE), _inner(empty)


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    return eroded


def _share(mask: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
    return float(mask[of].mean()) if of.any() else None
