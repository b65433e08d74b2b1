from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qprd.demo.slides import write_pyramidal_tiff
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.model.anomaly import smooth, upsampled
from qprd.model.frd import FRD
from qprd.model.inference import for_inference
from qprd.model.network import Network
from qprd.scoring import by_field, fields
from qprd.scoring.by_field import (
    score_slide_by_field,
    score_windows,
    sees_far,
)
from qprd.scoring.cells import score_grid
from qprd.scoring.fields import HALO_PX, Windows
from qprd.settings import ModelKind
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask
from tests.helpers.counting_task import CountingTask
from tests.helpers.small_models import random_model
from tests.helpers.textured_slide import textured

MPP, PATCH_PX = 0.5, 128
WIDTH, HEIGHT = 760, 500
FABRIC = make_fabric("cpu", "32")

#: Largest difference of a patch's score that the borders of fields may make.
SEAM = 0.005


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("slide") / "textured.tif"
    write_pyramidal_tiff(textured(HEIGHT, WIDTH), path, MPP)
    with Slide(path) as opened:
        yield opened


def make_model(kind: ModelKind, teacher: str = "efficientnet_lite0") -> Network:
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    return for_inference(random_model(kind, teacher))


@pytest.fixture(scope="module")
def model() -> Network:
    return make_model("frd")


def every(step: int) -> Windows:
    x, y = np.meshgrid(
        np.arange(0, WIDTH - PATCH_PX + 1, step), np.arange(0, HEIGHT - PATCH_PX + 1, step)
    )
    return Windows(x.ravel(), y.ravel(), PATCH_PX)


def scores(model: Network, slide: Slide, windows: Windows, **options: object) -> np.ndarray:
    return score_windows(
        model,
        slide,
        windows,
        **{"mpp": MPP, "fabric": FABRIC, "task": CountingTask(), **options},  # type: ignore[arg-type]
    )


def with_cores(monkeypatch: pytest.MonkeyPatch, *edges: int) -> None:
    monkeypatch.setattr(by_field, "cores_px", lambda *_: list(edges))


@pytest.mark.parametrize("kind", ["frd", "discriminant", "standardized_frd"])
def test_the_borders_of_fields_do_not_show(
    kind: ModelKind, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(kind)
    with_cores(monkeypatch, 1024)
    in_one = scores(model, slide, every(60))
    with_cores(monkeypatch, 256)
    in_many = scores(model, slide, every(60))
    assert np.abs(in_many - in_one).max() < SEAM
    assert in_one.std() > 2 * SEAM
    # without a halo they would
    monkeypatch.setattr(fields, "HALO_PX", 0)
    assert np.abs(scores(model, slide, every(60)) - in_one).max() > SEAM


def test_a_score_is_the_mean_of_the_map_over_its_window(
    model: Network, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(monkeypatch, 1024)  # all of the slide
    pixels = slide.read_region(0, 0, WIDTH, HEIGHT, MPP)
    padded = np.pad(pixels, [(0, -HEIGHT % 32), (0, -WIDTH % 32), (0, 0)], mode="symmetric")
    batch = torch.from_numpy(padded).permute(2, 0, 1).unsqueeze(0)
    with torch.inference_mode():
        size = (batch.shape[-2], batch.shape[-1])
        maps = smooth(upsampled(model.location_scores(batch), size))[0].numpy()
    windows = Windows(np.array([0, 237, 600, 632]), np.array([0, 211, 3, 372]), PATCH_PX)
    expected = [
        maps[y : y + PATCH_PX, x : x + PATCH_PX] for x, y in zip(windows.x, windows.y, strict=True)
    ]
    mean = scores(model, slide, windows)
    np.testing.assert_allclose(mean, [part.mean() for part in expected], atol=1e-5)
    largest = scores(model, slide, windows, reduction="max")
    np.testing.assert_allclose(largest, [part.max() for part in expected], atol=1e-5)


def test_the_cells_of_a_grid_get_the_scores_of_their_patches(model: Network, slide: Slide) -> None:
    tissue = np.zeros((HEIGHT // 20, WIDTH // 20), np.bool_)
    tissue[:, :20] = True
    grid = score_grid(
        slide, TissueMask(tissue, 20.0), mpp=MPP, patch_px=PATCH_PX, stride=64, min_tissue=0.5
    )
    task = CountingTask()
    found = score_slide_by_field(model, slide, grid, fabric=FABRIC, reduction="mean", task=task)
    np.testing.assert_array_equal(np.isnan(found.scores), ~grid.wanted)
    assert task.done == grid.wanted.sum()
    rows, columns = np.nonzero(grid.wanted)
    windows = Windows(grid.patch_x[columns], grid.patch_y[rows], PATCH_PX)
    np.testing.assert_array_equal(found.scores[rows, columns], scores(model, slide, windows))


def test_pixels_far_from_any_window_are_not_read(
    model: Network, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = Slide.read_region

    def watched(self: Slide, *region: float) -> np.ndarray:
        x, y, width, height, _ = region
        read.append((x, y, x + width, y + height))
        return original(self, *region)  # type: ignore[arg-type]

    monkeypatch.setattr(Slide, "read_region", watched)
    scores(model, slide, Windows(np.array([320]), np.array([160]), PATCH_PX))
    left, top, right, bottom = np.array(read).T
    assert left.min() >= 320 - HALO_PX
    assert right.max() <= 320 + PATCH_PX + HALO_PX
    assert top.min() >= 160 - HALO_PX
    assert bottom.max() <= 160 + PATCH_PX + HALO_PX
    read.clear()
    none = Windows(np.zeros(0, np.int64), np.zeros(0, np.int64), PATCH_PX)
    assert scores(model, slide, none).shape == (0,)
    assert not read


@pytest.mark.parametrize("size", [(40, 30), (128, 128), (133, 129)])
def test_small_slides_have_scores(model: Network, tmp_path: Path, size: tuple[int, int]) -> None:
    write_pyramidal_tiff(textured(*size), tmp_path / "small.tif", MPP)
    with Slide(tmp_path / "small.tif") as small:
        found = scores(model, small, Windows(np.zeros(1, int), np.zeros(1, int), PATCH_PX))
    assert np.isfinite(found).all()


def test_out_of_memory_halves_the_field_and_goes_on(
    model: Network, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(monkeypatch, 128, 256, 512)
    expected = scores(model, slide, every(100))
    whole, edges = FRD.location_scores, []

    def small_device(model: FRD, batch: Tensor) -> list[Tensor]:
        edges.append(max(batch.shape[-2:]))
        if max(batch.shape[-2:]) > 256 + 2 * HALO_PX:
            raise torch.OutOfMemoryError("the device is full")
        return whole(model, batch)

    monkeypatch.setattr(FRD, "location_scores", small_device)
    task = CountingTask()
    found = scores(model, slide, every(100), task=task)
    np.testing.assert_allclose(found, expected, atol=SEAM)
    assert task.done == len(found)
    assert sum(edge > 256 + 2 * HALO_PX for edge in edges) == 1  # the first one taught it


def test_no_memory_at_all_is_an_error_that_says_what_to_do(
    model: Network, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("the device is full")

    monkeypatch.setattr(FRD, "location_scores", full)
    with pytest.raises(QprdError, match="memory of cpu") as caught:
        scores(model, slide, every(100))
    assert "--device" in (caught.value.fix or "")


def test_squeeze_and_excitation_is_found_out_and_nothing_else() -> None:
    assert not sees_far(make_model("frd"), FABRIC)
    assert not sees_far(make_model("discriminant", "resnet18"), FABRIC)
    assert sees_far(make_model("discriminant", "timm:mobilenetv3_small_100"), FABRIC)
