from __future__ import annotations

import io
import json
import shutil
import subprocess
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from shapely.geometry import box

from qprd.errors import QprdError
from qprd.predictions import (
    MEAN_SCORE,
    SCORE,
    LesionPoints,
    PredictedContour,
    PredictedTile,
    Predictions,
    ScoreMap,
    object_id,
)
from qprd.results.arrays import SCORE_MAP, load_score_map, load_tissue
from qprd.results.folder import (
    LESION_POINTS,
    SCORE_TIFF,
    SLIDE,
    SlideResult,
    keep_earlier,
    load_lesion_points,
    load_predictions,
    load_slide_result,
    save_result,
)
from qprd.slides.frame import Frame
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask

SCORES = np.array([[0.25, np.nan], [1.5, 2.0]], np.float32)
SLIDE_RESULT = SlideResult(
    "1",
    "a.tif",
    "b",
    "2026-01-01T00:00:00+00:00",
    2.0,
    None,
    3.0,
    1.0,
    3,
    1,
    0.5,
    1.0,
    Frame(5, 6, 700, 800, 90),
)

FOUND = LesionPoints(np.array([1 / 3, 1e-9]), np.array([32.0, 1e5 + 0.1]), np.array([40.0, 8.5]))


def predictions(count: int = 3) -> Predictions:
    tiles = tuple(
        PredictedTile(object_id("b", "1", "tile", i), 64.0 * i, 0.0, 64.0, 64.0, {SCORE: 0.5 * i})
        for i in range(count)
    )
    contour = PredictedContour(
        object_id("b", "1", "contour", 0), box(0, 0, 64, 64), None, {MEAN_SCORE: 0.5}
    )
    return Predictions(tiles, (contour,), metadata={"qprd: bundle": "b"})


def save(
    folder: Path, *, tiles: int = 3, overview: bytes = b"png", tissue: TissueMask | None = None
) -> None:
    score_map = ScoreMap(SCORES, 0.0, 8.0, 64.0, 0.5)
    save_result(
        folder,
        SLIDE_RESULT,
        score_map,
        predictions(tiles),
        probabilities=SCORES.astype(np.float64) / 4.0,
        lesion_points=FOUND,
        overview=overview,
        tissue=tissue,
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "1"
    save(folder)
    loaded = load_score_map(folder)
    np.testing.assert_array_equal(loaded.scores, SCORES)
    assert (loaded.x, loaded.y, loaded.cell_px, loaded.mpp) == (0.0, 8.0, 64.0, 0.5)
    np.testing.assert_array_equal(tifffile.imread(folder / SCORE_TIFF), SCORES / 4)
    assert load_slide_result(folder) == SLIDE_RESULT
    assert json.loads((folder / SLIDE).read_text())["image"] == "a.tif"
    stored = load_predictions(folder)
    assert [tile.id for tile in stored.tiles] == [tile.id for tile in predictions().tiles]
    assert stored.metadata == predictions().metadata
    found = load_lesion_points(folder)
    assert len(found) == 2
    for one, other in ((found.scores, FOUND.scores), (found.x, FOUND.x), (found.y, FOUND.y)):
        np.testing.assert_array_equal(one, other)


def test_detections_are_a_table_that_other_programs_read(tmp_path: Path) -> None:
    save(tmp_path / "1")
    lines = (tmp_path / "1" / LESION_POINTS).read_text().splitlines()
    assert lines == ["score,x,y", "0.3333333333333333,32.0,40.0", "1e-09,100000.1,8.5"]


def test_no_detections_are_none(tmp_path: Path) -> None:
    nothing = LesionPoints(np.empty(0), np.empty(0), np.empty(0))
    score_map = ScoreMap(SCORES, 0.0, 8.0, 64.0, 0.5)
    save_result(
        tmp_path / "1",
        SLIDE_RESULT,
        score_map,
        predictions(),
        probabilities=None,
        lesion_points=nothing,
        overview=b"",
    )
    assert len(load_lesion_points(tmp_path / "1")) == 0


@pytest.mark.parametrize(
    "text", ["", "score,x\n", "score,x,y\n1,2\n", "score,x,y\n1,2,3,4\n", "score,x,y\n1,nan,3\n",
             "x,y,score\n1,2,3\n", "score,x,y\n1,2,3\n\n", "score,x,y\n1,2,three\n", "\x00"]
)  # fmt: skip
def test_damaged_detections_are_no_traceback(tmp_path: Path, text: str) -> None:
    save(tmp_path / "1")
    (tmp_path / "1" / LESION_POINTS).write_text(text)
    with pytest.raises(QprdError, match="damaged"):
        load_lesion_points(tmp_path / "1")


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    save(folder)
    (folder / "left over").write_text("")
    save(folder, tiles=1)
    assert len(load_predictions(folder).tiles) == 1
    assert not (folder / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_result_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    for load in (load_predictions, load_score_map, load_slide_result, load_lesion_points):
        with pytest.raises(QprdError) as caught:
            load(tmp_path)
        assert caught.value.fix == "Run qprd predict first."


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x04."])
def test_a_damaged_score_map_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    save(tmp_path / "1")
    (tmp_path / "1" / SCORE_MAP).write_bytes(content)
    with pytest.raises(QprdError, match="damaged"):
        load_score_map(tmp_path / "1")


@pytest.mark.parametrize("name", ["score_map_bomb.npz", "score_map_brokenheader.npz"])
def test_a_hostile_score_map_is_damaged_and_takes_no_memory(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    shutil.copyfile(shared_data / "hard" / name, tmp_path / SCORE_MAP)
    with pytest.raises(QprdError, match="damaged"):
        load_score_map(tmp_path)


def test_an_array_that_claims_more_than_is_stored_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "1")
    path = tmp_path / "1" / SCORE_MAP
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", header.getvalue() + bytes(64))
    tracemalloc.start()
    with pytest.raises(QprdError, match="damaged"):
        load_score_map(tmp_path / "1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_pickle_in_the_score_map_is_not_loaded(tmp_path: Path) -> None:
    save(tmp_path / "1")
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "1" / SCORE_MAP, scores=objects, grid=np.zeros(4))
    with pytest.raises(QprdError, match="damaged"):
        load_score_map(tmp_path / "1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entry_id": 1}'])
def test_damaged_figures_are_no_traceback(tmp_path: Path, text: str) -> None:
    save(tmp_path / "1")
    (tmp_path / "1" / SLIDE).write_text(text)
    with pytest.raises(QprdError, match="damaged"):
        load_slide_result(tmp_path / "1")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("no mount command")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run([unmount, disk], check=True)


def test_a_full_disk_leaves_the_earlier_result(small_disk: Path) -> None:
    folder = small_disk / "1"
    save(folder)
    with pytest.raises(QprdError, match="cannot be written") as caught:
        save(folder, overview=bytes(400_000))
    assert "disk space" in (caught.value.fix or "")
    assert len(load_predictions(folder).tiles) == 3
    assert [path.name for path in small_disk.iterdir()] == ["1"]


def test_where_tissue_was_is_kept_with_the_scores(tmp_path: Path) -> None:
    surface = np.array([[Surface.GLASS, Surface.TISSUE], [Surface.PEN, Surface.SMALL]], np.uint8)
    save(tmp_path / "1", tissue=TissueMask(surface == Surface.TISSUE, 16.0, 0.5, surface))
    found = load_tissue(tmp_path / "1")
    assert found is not None
    assert found.surface is not None
    assert np.array_equal(found.surface, surface)
    assert (found.mask.tolist(), found.downsample) == ([[False, True], [False, False]], 16.0)
    np.testing.assert_array_equal(load_score_map(tmp_path / "1").scores, SCORES)
    save(tmp_path / "2")
    assert load_tissue(tmp_path / "2") is None


def test_of_another_bundle_the_last_result_is_kept(tmp_path: Path) -> None:
    folder, earlier = tmp_path / "1", tmp_path / "earlier" / "1"
    keep_earlier(folder, earlier, "b")
    save(folder)
    keep_earlier(folder, earlier, SLIDE_RESULT.bundle)
    assert not earlier.exists()
    keep_earlier(folder, earlier, "another")
    assert load_slide_result(earlier) == SLIDE_RESULT
    np.testing.assert_array_equal(load_score_map(earlier).scores, SCORES)
    (folder / "score_map.npz").write_bytes(b"")
    keep_earlier(folder, earlier, "a third")
    np.testing.assert_array_equal(load_score_map(earlier).scores, SCORES)
