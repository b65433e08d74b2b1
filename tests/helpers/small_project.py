"""A project file without slides, and predictions to write into it."""

from __future__ import annotations

import json
from pathlib import Path

from shapely.geometry import Polygon, box

from qprd.predictions import (
    AREA_UM2,
    MAX_SCORE,
    MEAN_SCORE,
    PROBABILITY,
    REVIEW_RANK,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
    object_id,
)
from qprd.qupath.exchange import ExchangeProject


def named_project(folder: Path, *names: str) -> ExchangeProject:
    """A project with images of these names, of ids 1, 2, ..."""
    images = [{"entryID": i, "imageName": name} for i, name in enumerate(names, start=1)]
    folder.mkdir(exist_ok=True)
    path = folder / "project.qpproj"
    path.write_text(json.dumps({"version": "0.6.0", "images": images}))
    return ExchangeProject(path)


def predictions(tiles: int = 3, bundle: str = "b") -> Predictions:
    """Tiles in a row, a contour with a hole, and a region to review."""
    ring = [(0.004, 0), (1000, 0), (1000, 1000.255), (0, 1000)]
    hole = [(100, 100), (200, 100), (200, 200)]
    return Predictions(
        tiles=tuple(
            PredictedTile(
                object_id(bundle, "1", "tile", i),
                64.0 * i,
                0.0,
                64.0,
                64.0,
                {SCORE: 1.5, PROBABILITY: 0.1},
            )
            for i in range(tiles)
        ),
        contours=(
            PredictedContour(
                object_id(bundle, "1", "contour", 0),
                Polygon(ring, [hole]),
                "region 1",
                {MEAN_SCORE: 1 / 3, MAX_SCORE: 4.0, AREA_UM2: 1e5},
            ),
        ),
        metadata={"qprd: score": "0.93", "qprd: bundle": bundle},
        review=(
            ReviewRegion(
                object_id(bundle, "1", "review", 0),
                box(10, 10, 202, 202),
                "3",
                {MEAN_SCORE: 0.5, REVIEW_RANK: 3.0},
            ),
        ),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder but for those in ``qprd/backups``, and the lock."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {
        name: content
        for name, content in found.items()
        if name != "qprd/lock" and not name.startswith("qprd/backups/")
    }
