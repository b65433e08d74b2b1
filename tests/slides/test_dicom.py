"""A DICOM slide of three levels, each a file, that wsidicomizer 0.26 made of an Aperio slide.

The Aperio slide was made by tifffile of the pixels below, in JPEG tiles of 128 px.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qprd.errors import QprdError
from qprd.slides.fingerprint import fingerprint
from qprd.slides.slide import Slide

DICOM = Path(__file__).with_name("dicom")
Y, X = np.mgrid[0:384, 0:512]
PIXELS = np.stack([X * 0.4 + 40, Y * 0.5 + 40, (X + Y) * 0.2 + 60], axis=-1).round()


@pytest.mark.parametrize("name", ["0.dcm", "1.dcm", "2.dcm"])
def test_any_file_of_a_dicom_series_opens_all_its_levels(name: str) -> None:
    with Slide(DICOM / name) as slide:
        assert (slide.width, slide.height) == (512, 384)
        assert slide.mpp == pytest.approx(0.5)
        full = slide.read_region(0, 0, 512, 384, None)
        assert np.abs(full.astype(float) - PIXELS).max() <= 4
        coarse = slide.read_region(0, 0, 128, 96, 2.0)
        assert np.abs(coarse.astype(float) - PIXELS[2::4, 2::4]).max() <= 8


def test_a_damaged_dicom_file_says_what_to_do(tmp_path: Path) -> None:
    shutil.copy(DICOM / "2.dcm", tmp_path)
    path = tmp_path / "2.dcm"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(QprdError) as caught:
        Slide(path)
    assert "OME-TIFF" in str(caught.value.fix)


def test_an_ome_zarr_says_what_to_convert_it_with(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(QprdError, match="OME-Zarr") as caught:
        Slide(tmp_path / "a.ome.zarr")
    assert "raw2ometiff" in str(caught.value.fix)


def test_any_file_of_a_dicom_series_is_the_same_slide() -> None:
    assert len({fingerprint(file) for file in DICOM.glob("*.dcm")}) == 1
