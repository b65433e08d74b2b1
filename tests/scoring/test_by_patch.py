from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qprd.demo.slides import write_pyramidal_tiff
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.teacher import build_teacher
from qprd.predictions import ScoreMap
from qprd.scoring import by_patch, cells
from qprd.scoring.by_patch import score_patches, score_slide_by_patch
from qprd.scoring.cells import ScoreGrid, score_grid
from qprd.settings import ModelKind, PatchScore
from qprd.slides.read_ahead import read_ahead
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask, tissue_mask
from tests.helpers.counting_task import CountingTask
from tests.helpers.small_models import random_model

MPP = 0.5
PATCH_PX, STRIDE = 64, 48
FABRIC = make_fabric("cpu", "32")


@pytest.fixture(scope="module")
def model() -> FRD:
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    torch.manual_seed(0)
    return build_network(FRD, build_teacher("efficientnet_lite0", pretrained=False), 0).eval()


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textured tissue that touches the right and lower edge, white elsewhere; 500 x 420 px."""
    random = np.random.default_rng(0)
    image = np.full((420, 500, 3), 244, np.uint8)
    coarse = random.integers(40, 200, (40, 50, 3), dtype=np.uint8)
    tissue = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)
    tissue[..., 1] //= 2
    image[100:, 100:] = tissue[:320, :400]
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_pyramidal_tiff(image, path, MPP)
    return path


def grid_of(
    slide: Slide, *, mpp: float = MPP, stride: int = STRIDE, least: float = 0.5
) -> ScoreGrid:
    return score_grid(
        slide, tissue_mask(slide), mpp=mpp, patch_px=PATCH_PX, stride=stride, min_tissue=least
    )


def score(
    model: FRD,
    slide: Slide,
    grid: ScoreGrid,
    task: CountingTask | None = None,
    reduction: PatchScore = "mean",
) -> ScoreMap:
    return score_slide_by_patch(
        model,
        slide,
        grid,
        fabric=FABRIC,
        batch_size=7,
        reduction=reduction,
        task=task or CountingTask(),
    )


def one_by_one(model: FRD, slide: Slide, grid: ScoreGrid) -> NDArray[np.float32]:
    """Every wanted cell from a patch that is read by itself."""
    scores = np.full(grid.wanted.shape, np.nan, np.float32)
    for row, column in np.argwhere(grid.wanted):
        patch = slide.read_region(
            grid.patch_x[column] * grid.to_level0,
            grid.patch_y[row] * grid.to_level0,
            PATCH_PX,
            PATCH_PX,
            grid.mpp,
        )
        batch = patch.transpose(2, 0, 1)[None]
        scores[row, column] = score_patches(model, batch, fabric=FABRIC, batch_size=1)[0]
    return scores


def test_a_slide_is_scored_as_its_patches_are_one_by_one(model: FRD, slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide)
        assert grid.wanted.any()
        assert not grid.wanted.all()
        found = score(model, slide, grid).scores
        np.testing.assert_allclose(found, one_by_one(model, slide, grid), rtol=1e-4, atol=1e-5)
        assert len(np.unique(found[~np.isnan(found)])) > 10


@pytest.mark.parametrize("mpp", [1.0, 0.37])
def test_this_holds_at_other_resolutions_than_the_slides(
    model: FRD, slide_file: Path, mpp: float
) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide, mpp=mpp, stride=round(40 / mpp))
        found = score(model, slide, grid).scores
        np.testing.assert_allclose(found, one_by_one(model, slide, grid), atol=2e-2)


@pytest.mark.parametrize("block_px", [1, 100, 129, 300])
def test_the_borders_of_blocks_do_not_show(
    model: FRD, slide_file: Path, monkeypatch: pytest.MonkeyPatch, block_px: int
) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide, stride=64)
        whole = score(model, slide, grid).scores
        monkeypatch.setattr("qprd.scoring.by_patch._BLOCK_PX", block_px)
        np.testing.assert_allclose(score(model, slide, grid).scores, whole, rtol=1e-4, atol=1e-5)


def test_the_maximum_of_a_patch_is_its_score_where_the_bundle_says_so(
    model: FRD, slide_file: Path
) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide, stride=96)
        mean, largest = (score(model, slide, grid, reduction=how).scores for how in ("mean", "max"))
    wanted = grid.wanted
    assert (largest[wanted] > mean[wanted]).all()


def test_scores_are_exactly_in_the_wanted_cells_and_each_is_counted_once(
    model: FRD, slide_file: Path
) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide)
        task = CountingTask()
        score_map = score(model, slide, grid, task)
    np.testing.assert_array_equal(np.isnan(score_map.scores), ~grid.wanted)
    assert task.done == grid.wanted.sum()
    assert not grid.wanted[0, 0]  # white


def test_patches_are_inside_the_slide_and_around_their_cells(slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        grid = grid_of(slide)
        columns = len(grid.patch_x)
        assert columns == 11
        assert (grid.patch_x >= 0).all()
        assert (grid.patch_x + PATCH_PX <= slide.width).all()
        assert (grid.patch_y + PATCH_PX <= slide.height).all()
        inner = np.arange(1, columns - 1)
        center = grid.patch_x[inner] + PATCH_PX / 2
        np.testing.assert_array_equal(center, inner * STRIDE + STRIDE / 2)
        # the tissue reaches the right edge, where 20 of the last cell's 48 pixels are
        assert not grid.wanted[:, -1].any()
        assert grid_of(slide, least=0.3).wanted[:, -1].any()


def test_only_tissue_is_ever_shown_to_the_model(
    model: FRD, slide_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def look(_model, images, **_):  # type: ignore[no-untyped-def]
        seen.extend((images.min(axis=1) < 230).mean(axis=(1, 2)).tolist())
        return np.zeros(len(images), np.float32)

    monkeypatch.setattr("qprd.scoring.by_patch.score_patches", look)
    with Slide(slide_file) as slide:
        score(model, slide, grid_of(slide, least=0.9))
    # The mask's pixels are a quarter of a patch wide, and it may have one too many at each side.
    assert min(seen) > 0.75**2


def test_the_map_lies_where_the_cells_are(slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        empty = grid_of(slide, mpp=1.0).empty_map()
    assert (empty.x, empty.y, empty.cell_px, empty.mpp) == (0, 0, STRIDE * 2, MPP)
    assert empty.scores.shape == (5, 6)
    assert np.isnan(empty.scores).all()


def test_a_slide_smaller_than_a_patch_is_one_patch_with_white_around(
    model: FRD, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    write_pyramidal_tiff(
        random.integers(0, 180, (40, 30, 3), dtype=np.uint8), tmp_path / "s.tif", MPP
    )
    with Slide(tmp_path / "s.tif") as slide:
        tissue = TissueMask(np.ones((40, 30), np.bool_), 1.0)
        grid = score_grid(slide, tissue, mpp=MPP, patch_px=PATCH_PX, stride=64, min_tissue=0.1)
        assert (grid.patch_x.tolist(), grid.patch_y.tolist()) == ([0], [0])
        found = score(model, slide, grid).scores
        np.testing.assert_allclose(found, one_by_one(model, slide, grid), rtol=1e-4)
        assert np.isfinite(found).all()


def test_a_slide_without_tissue_is_not_read_at_all(
    model: FRD, slide_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Slide(slide_file) as slide:
        nothing = TissueMask(np.zeros((42, 50), np.bool_), 10.0)
        grid = score_grid(slide, nothing, mpp=MPP, patch_px=PATCH_PX, stride=STRIDE, min_tissue=0.0)
        monkeypatch.setattr(Slide, "read_region", None)
        assert np.isnan(score(model, slide, grid).scores).all()


def test_memory_is_that_of_a_few_blocks(
    model: FRD, slide_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that were read and not yet scored are few, and none is larger than the limit."""
    limit = 160
    monkeypatch.setattr("qprd.scoring.by_patch._BLOCK_PX", limit)
    lock, waiting, most, sizes = threading.Lock(), 0, 0, []
    read = Slide.read_region

    def counted(self, *region):  # type: ignore[no-untyped-def]
        nonlocal waiting, most
        pixels = read(self, *region)
        with lock:
            waiting += 1
            most = max(most, waiting)
            sizes.append(max(pixels.shape[:2]))
        return pixels

    def consumed(_model, images, **_):  # type: ignore[no-untyped-def]
        return np.zeros(len(images), np.float32)

    def watched(read_block, blocks):  # type: ignore[no-untyped-def]
        nonlocal waiting
        for item in read_ahead(read_block, blocks):
            yield item
            with lock:
                waiting -= 1

    monkeypatch.setattr(Slide, "read_region", counted)
    monkeypatch.setattr(by_patch, "score_patches", consumed)
    monkeypatch.setattr(by_patch, "read_ahead", watched)
    with Slide(slide_file) as slide:
        score(model, slide, grid_of(slide))
    assert len(sizes) > 10
    assert max(sizes) <= limit
    assert most <= 4


def test_a_map_that_no_memory_could_hold_is_refused(slide_file: Path) -> None:
    with Slide(slide_file) as slide, pytest.raises(QprdError, match="cells"):
        grid_of(slide, mpp=1e-6)


def test_an_error_while_reading_reaches_the_caller(
    model: FRD, slide_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise QprdError("damaged")

    with Slide(slide_file) as slide:
        grid = grid_of(slide)
        monkeypatch.setattr(Slide, "read_region", damaged)
        with pytest.raises(QprdError, match="damaged"):
            score(model, slide, grid)


def test_patch_scores_do_not_depend_on_the_batch(model: FRD) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 3, 64, 64), dtype=np.uint8)
    model.train()
    at_once = score_patches(model, images, fabric=FABRIC, batch_size=9)
    assert not model.training
    in_parts = score_patches(model, images, fabric=FABRIC, batch_size=2)
    np.testing.assert_allclose(at_once, in_parts, rtol=1e-4, atol=1e-5)
    assert at_once.shape == (9,)
    assert score_patches(model, images[:0], fabric=FABRIC, batch_size=2).shape == (0,)


@settings(max_examples=60)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    stride=st.integers(8, 200),
    patch_px=st.sampled_from([32, 64, 96]),
    mpp=st.floats(0.2, 2.0),
)
def test_a_grid_covers_the_slide_and_its_patches_stay_inside(
    width: int, height: int, stride: int, patch_px: int, mpp: float
) -> None:
    class Sized:
        path = Path("x.svs")

    slide = Sized()
    slide.width, slide.height, slide.mpp = width, height, MPP  # type: ignore[attr-defined]
    everywhere = TissueMask(np.ones((height, width), np.bool_), 1.0)
    grid = score_grid(
        slide,  # type: ignore[arg-type]
        everywhere,
        mpp=mpp,
        patch_px=patch_px,
        stride=stride,
        min_tissue=0.0,
    )
    rows, columns = grid.wanted.shape
    edge = stride * grid.to_level0
    for count, length, starts in (
        (columns, width, grid.patch_x),
        (rows, height, grid.patch_y),
    ):
        assert (count - 1) * edge < length <= count * edge + 1e-3
        assert len(starts) == count
        assert (np.diff(starts) >= 0).all()
        assert starts.min() >= 0
        if patch_px * grid.to_level0 <= length:
            assert (starts[-1] + patch_px) * grid.to_level0 <= length + 1e-6
        else:
            assert (starts == 0).all()


def test_more_tiles_than_qupath_shows_are_refused(
    slide_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Slide(slide_file) as slide:
        tiles = int(grid_of(slide).wanted.sum())
        monkeypatch.setattr(cells, "MAX_TILES", tiles)
        grid_of(slide)
        monkeypatch.setattr(cells, "MAX_TILES", tiles - 1)
        with pytest.raises(QprdError, match="tiles") as caught:
            grid_of(slide)
    assert "--stride" in (caught.value.fix or "")


def test_scores_that_are_not_finite_are_an_error_and_not_missing_tissue() -> None:
    class Broken(FRD):
        def forward(
            self, images: torch.Tensor, known: Sequence[torch.Tensor] | None = None
        ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
            maps = [torch.ones(len(images), 4, edge, edge) for edge in (16, 8, 4)]
            return maps, [m * float("nan") for m in maps]

    images = np.zeros((2, 3, 64, 64), np.uint8)
    teacher = build_teacher("resnet18", pretrained=False)
    broken = Broken(teacher)
    with pytest.raises(QprdError, match="not finite"):
        score_patches(broken, images, fabric=FABRIC, batch_size=2)


def test_a_model_that_transposes_scores_an_image_and_its_transpose_alike() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 96), np.uint8)
    turned = np.ascontiguousarray(images.transpose(0, 1, 3, 2))
    kinds: dict[ModelKind, bool] = {"discriminant": True, "standardized_frd": True, "frd": False}
    for kind, alike in kinds.items():
        model = random_model(kind, "efficientnet_lite0")
        first, second = (
            score_patches(model, batch, fabric=FABRIC, batch_size=2) for batch in (images, turned)
        )
        assert np.allclose(first, second, atol=1e-5) == alike
