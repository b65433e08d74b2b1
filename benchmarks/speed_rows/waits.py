"""Other waits of a user: the command line, contours, label regions, the tissue mask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import shapely
from scipy import ndimage

from qprd.predictions import ScoreMap
from qprd.qupath.project import Annotation
from qprd.results.contours import contours
from qprd.sampling.region_index import RegionIndex
from qprd.sampling.regions import label_regions
from speed_rows.row import Row, Setup, seconds

_MAP_CELLS = 2000
_POLYGONS = 20_000
_VERTICES = 300_000
_SLIDE_PX = 100_000


def measure(_setup: Setup) -> Iterator[Row]:
    """Each against the longest that a user should wait."""
    yield _command(["--help"], 0.3)
    yield _command(["doctor"], 2.0)
    yield _contours()
    yield _label_regions()
    yield _detailed_outline()


def _within(what: str, limit_s: float, found_s: float, detail: str) -> Row:
    return Row(what, f"{limit_s:g} s", "<=", 1.0, found_s / limit_s, f"{found_s:.2f} s; {detail}")


def _command(arguments: list[str], limit_s: float) -> Row:
    environment = {name: value for name, value in os.environ.items() if name != "PAQUO_QUPATH_DIR"}
    run = partial(
        subprocess.run,
        [sys.executable, "-m", "qprd", *arguments],
        capture_output=True,
        env=environment,
        check=False,
    )
    (found,) = seconds(run)
    return _within(
        f"`qprd {' '.join(arguments)}`", limit_s, found, "a process of its own, no QuPath"
    )


def _contours() -> Row:
    random = np.random.default_rng(0)
    noise = random.normal(size=(_MAP_CELLS, _MAP_CELLS)).astype(np.float32)
    scores = ndimage.gaussian_filter(noise, 12)
    scores /= scores.std()
    scores[ndimage.gaussian_filter(noise[::-1], 60) > 0.005] = np.nan
    score_map = ScoreMap(scores, 0.0, 0.0, 64.0, 0.25)
    found: list[shapely.Polygon] = []

    def outline() -> None:
        found[:] = contours(score_map, 1.0, min_area_um2=5_000, min_hole_um2=5_000, tolerance_um=4)

    (spent,) = seconds(outline)
    vertices = int(shapely.get_num_coordinates(found).sum())
    return _within(
        f"contours of a {_MAP_CELLS:,} x {_MAP_CELLS:,} map",
        1.0,
        spent,
        f"{len(found):,} contours of {vertices:,} points in smoothed noise with gaps",
    )


def _label_regions() -> Row:
    random = np.random.default_rng(0)
    centers = random.uniform(0, _SLIDE_PX, (_POLYGONS, 2))
    radii = random.uniform(50, 400, _POLYGONS)
    circles = shapely.buffer(shapely.points(centers), radii, quad_segs=8)
    annotations = [
        Annotation(str(number), circle, "Tumor" if number % 2 else "Normal")
        for number, circle in enumerate(circles)
    ]

    def make() -> None:
        regions = label_regions(annotations, _SLIDE_PX, _SLIDE_PX, mpp=0.25)
        for region in (regions.tumor_region, regions.normal_region):
            RegionIndex(region, 256).coverage(centers[:, 0], centers[:, 1], 256)

    (spent,) = seconds(make, repeats=1)
    return _within(
        f"label regions of {_POLYGONS:,} polygons",
        10.0,
        spent,
        "overlapping circles of two classes; regions, their indices, 20,000 patches measured",
    )


def _detailed_outline() -> Row:
    random = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    radius = 1500 + random.normal(size=_VERTICES)
    around = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, np.newaxis]
    outline = Annotation("1", shapely.polygons(around + 2000), "Tumor")
    corners = random.uniform(500, 3000, (1000, 2))

    def make() -> None:
        region = label_regions([outline], 4000, 4000, mpp=0.25).tumor_region
        RegionIndex(region, 512).coverage(corners[:, 0], corners[:, 1], 512)

    (spent,) = seconds(make, repeats=1)
    return _within(
        f"label regions of one outline of {_VERTICES:,} vertices",
        10.0,
        spent,
        "a valid polygon of 3,000 px; its region and index, 1,000 patches of 512 px measured",
    )
