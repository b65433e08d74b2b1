"""Writing 100,000 tiles back, against the bare Java calls of QuPath."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qprd.demo.creation import NewSlide, create_project
from qprd.predictions import SCORE, PredictedTile, Predictions, object_id
from qprd.qupath.java import find_qupath, start_qupath
from qprd.qupath.opening import open_project
from speed_rows.row import Row, RowStart, Setup, seconds

_TILES = 100_000
_EDGE_PX = 8.0


def measure(setup: Setup) -> Iterator[Row]:
    """Nothing is timed but writing: not opening the project, not starting Java."""
    row: RowStart = ("write-back of 100,000 tiles", "bulk `addObjects` and save", "<=", 2.0)
    installation = find_qupath()
    slide = setup.data / "slides" / "colon_1.tif"
    if installation is None or installation.problem is not None:
        why = "paquo finds none" if installation is None else installation.problem
        yield Row(*row, None, f"needs a QuPath: {why}")
        return
    if not slide.is_file():
        yield Row(*row, None, f"needs {slide}")
        return
    start_qupath()
    project = create_project(setup.folder / "ours", [NewSlide(slide, 0.5)])
    columns = int(np.sqrt(_TILES)) + 1
    tiles = tuple(
        PredictedTile(
            object_id("bundle", "1", "tile", number),
            _EDGE_PX * (number % columns),
            _EDGE_PX * (number // columns),
            _EDGE_PX,
            _EDGE_PX,
            {SCORE: number / _TILES},
        )
        for number in range(_TILES)
    )
    predictions = Predictions(tiles=tiles, contours=(), metadata={"qprd: bundle": "bundle"})
    bare = shutil.copytree(project.parent, setup.folder / "bare") / project.name
    opened, _ = open_project(project, backend="paquo")
    with opened:
        entry = opened.entries()[0]
        ours, floor = seconds(
            lambda: opened.write_predictions(entry, predictions),
            lambda: _bare(bare, tiles),
            repeats=4,
        )
    yield Row(
        *row,
        ours / floor,
        f"{ours:.1f} s with backup, journal and everything read back and compared; "
        f"{floor:.1f} s bare; QuPath {installation.version}",
    )


def _bare(project: Path, tiles: tuple[PredictedTile, ...]) -> None:
    """The fastest way that QuPath has, as a script of a user's would go it, and no check."""
    # The second one starts Java.
    from paquo._logging import redirect  # noqa: PLC0415
    from paquo.java import BufferedImage, File, JClass, ProjectIO  # noqa: PLC0415

    source = """
        class Bare {
            static List tiles(double[] x, double[] y, double edge, double[] scores, String name) {
                def plane = qupath.lib.regions.ImagePlane.getDefaultPlane()
                def made = new ArrayList(x.length)
                for (int i = 0; i < x.length; i++) {
                    def roi = qupath.lib.roi.ROIs.createRectangleROI(x[i], y[i], edge, edge, plane)
                    def tile = qupath.lib.objects.PathObjects.createTileObject(roi)
                    tile.measurementList.put(name, scores[i])
                    made.add(tile)
                }
                return made
            }
        }
    """
    with redirect():
        loader = JClass("groovy.lang.GroovyClassLoader")(ProjectIO.class_.getClassLoader())
        bare = JClass(loader.parseClass(source))
        entry = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()[0]
        data = entry.readImageData()
        hierarchy = data.getHierarchy()
        hierarchy.clearAll()
        made = bare.tiles(
            np.array([tile.x for tile in tiles]),
            np.array([tile.y for tile in tiles]),
            _EDGE_PX,
            np.array([tile.measurements[SCORE] for tile in tiles]),
            SCORE,
        )
        hierarchy.addObjects(made)
        entry.saveImageData(data)
