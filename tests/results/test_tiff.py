from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from qprd.predictions import ScoreMap
from qprd.results.tiff import GRID_NAMESPACE, TILE, write_score_tiff

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def a_map(rows: int = 600, columns: int = 1100) -> ScoreMap:
    """Scores that rise to the right, with a hole and a margin without tissue."""
    scores = np.broadcast_to(np.linspace(-1, 6, columns, dtype=np.float32), (rows, columns)).copy()
    scores[:, : columns // 10] = np.nan
    scores[rows // 2 : rows // 2 + 3, columns // 2 : columns // 2 + 3] = np.nan
    return ScoreMap(scores, 32.0, 8.5, 64.0, 0.25)


def probability(score_map: ScoreMap) -> np.ndarray:
    return 1 / (1 + np.exp(-score_map.scores.astype(np.float64)))


def pyramid(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        assert (series.axes, series.dtype, tiff.is_ome) == ("YX", np.dtype(np.float32), True)
        for level in series.levels:
            assert level.keyframe.tile == (TILE, TILE)
        return [level.asarray() for level in series.levels]


def test_it_holds_probabilities_where_there_are_any_and_else_raw_scores(tmp_path: Path) -> None:
    score_map = a_map()
    write_score_tiff(tmp_path / "p.ome.tif", score_map, probability(score_map), image="a")
    write_score_tiff(tmp_path / "r.ome.tif", score_map, None, image="a")
    for name, expected in (("p", probability(score_map)), ("r", score_map.scores)):
        levels = pyramid(tmp_path / f"{name}.ome.tif")
        np.testing.assert_array_equal(levels[0], expected.astype(np.float32))
        assert [level.shape for level in levels] == [(600, 1100), (300, 550), (150, 275), (75, 138)]
        assert max(levels[-1].shape) <= TILE < max(levels[-2].shape)


def test_it_says_where_on_the_slide_it_lies(tmp_path: Path) -> None:
    write_score_tiff(tmp_path / "p.ome.tif", a_map(), None, image="a <&> \x00\ud800 ü.svs")
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
        per_cm = tiff.pages.first.tags["XResolution"].value
        assert tiff.pages.first.tags["ResolutionUnit"].value == 3
    assert per_cm[0] / per_cm[1] == pytest.approx(10_000 / 16)
    image = root.find(f"{OME}Image")
    pixels, plane = root.find(f".//{OME}Pixels"), root.find(f".//{OME}Plane")
    assert image is not None
    assert pixels is not None
    assert plane is not None
    assert image.attrib["Name"] == "a <&> \ufffd\ufffd ü.svs: raw score of tumor"
    for axis, position in (("X", 8.0), ("Y", 2.125)):
        assert float(pixels.attrib[f"PhysicalSize{axis}"]) == 16
        assert pixels.attrib[f"PhysicalSize{axis}Unit"] == "µm"
        assert float(plane.attrib[f"Position{axis}"]) == position
    (noted,) = root.iter(f"{OME}MapAnnotation")
    assert noted.attrib["Namespace"] == GRID_NAMESPACE
    grid = {item.attrib["K"]: float(item.text or "") for item in noted.iter(f"{OME}M")}
    assert grid == {"x_px": 32.0, "y_px": 8.5, "cell_px": 64.0, "mpp": 0.25}


@settings(max_examples=25)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_a_smaller_level_is_the_mean_of_what_was_scored(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(rows, columns)).astype(np.float32)
    scores[random.random(scores.shape) < 0.6] = np.nan
    path = tmp_path_factory.mktemp("tiff") / "x.ome.tif"
    write_score_tiff(path, ScoreMap(scores, 0.0, 0.0, 64.0, 0.25), None, image="a")
    levels = pyramid(path)
    np.testing.assert_array_equal(levels[0], scores)
    for larger, smaller in pairwise(levels):
        assert smaller.shape == tuple(math.ceil(length / 2) for length in larger.shape)
        for _ in range(20):
            r, c = int(random.integers(smaller.shape[0])), int(random.integers(smaller.shape[1]))
            four = larger[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].astype(np.float64)
            four = four[~np.isnan(four)]
            assert np.isnan(smaller[r, c]) == (four.size == 0)
            if four.size:
                assert smaller[r, c] == pytest.approx(four.mean(), rel=1e-5, abs=1e-6)


def test_scores_as_large_as_numbers_go_stay_finite(tmp_path: Path) -> None:
    scores = np.full((TILE + 1, TILE + 1), np.finfo(np.float32).max)
    write_score_tiff(tmp_path / "x.ome.tif", ScoreMap(scores, 0, 0, 64, 0.25), None, image="a")
    assert all(np.isfinite(level).all() for level in pyramid(tmp_path / "x.ome.tif"))


def test_the_same_map_gives_the_same_bytes_and_another_another_id(tmp_path: Path) -> None:
    files = []
    for index, image in enumerate("aab"):
        path = tmp_path / f"{index}.ome.tif"
        write_score_tiff(path, a_map(60, 80), None, image=image)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    ids = [file[file.index(b"urn:uuid") :][:45] for file in files]
    assert ids[0] != ids[2]
