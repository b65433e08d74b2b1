"""Tissue rules of other programs, transcribed so that the table needs neither them nor OpenCV.

Each takes RGB at `MASK_MPP` micrometers per pixel, (h, w, 3), and returns its tissue, bool (h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from tissue_rows.case import MASK_MPP

Rule: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]

#: An ellipse of OpenCV, ``getStructuringElement(MORPH_ELLIPSE, (4, 4))``.
_ELLIPSE_4 = np.array([[0, 0, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=np.bool_)


def tiatoolbox_otsu(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`OtsuTissueMasker` of tiatoolbox 2.0.1: gray values below their Otsu threshold."""
    gray = np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    below: NDArray[np.bool_] = gray < threshold_otsu(gray)
    return below


def tiatoolbox_morphological(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`MorphologicalMasker` of tiatoolbox 2.0.1: Otsu, no small pieces, dilated by 32 um."""
    assert _ELLIPSE_4.shape[0] == 32 / MASK_MPP
    labels, count = ndimage.label(tiatoolbox_otsu(pixels), structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= _ELLIPSE_4.sum()
    keep[0] = False
    dilated: NDArray[np.bool_] = ndimage.binary_dilation(keep[labels], _ELLIPSE_4[::-1, ::-1])
    return dilated


def clam(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """`segmentTissue` of CLAM (53e2409), its default: saturation, median of 7, above 8, closed.

    Its filter of contours by area is left out: by default it drops whatever is smaller than 100
    patches, which is more than most of these images have.
    """
    return _closed(_median_saturation(pixels) > 8)


def clam_otsu(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The same with ``--use_otsu``."""
    saturation = _median_saturation(pixels)
    return _closed(saturation > threshold_otsu(saturation))


def _median_saturation(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    saturation = np.round(rgb2hsv(pixels)[..., 1] * 255).astype(np.uint8)
    median: NDArray[np.uint8] = ndimage.median_filter(saturation, size=7, mode="nearest")
    return median


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    closed: NDArray[np.bool_] = ndimage.binary_closing(
        np.pad(mask, 4, mode="edge"), np.ones((4, 4))
    )
    return closed[4:-4, 4:-4]


RIVALS: dict[str, Rule] = {
    "TIAToolbox Otsu": tiatoolbox_otsu,
    "TIAToolbox morph.": tiatoolbox_morphological,
    "CLAM": clam,
    "CLAM Otsu": clam_otsu,
}
