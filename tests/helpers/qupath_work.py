"""What a person does in QuPath, what QuPath then holds, and predictions to add to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import Polygon, box

from qprd.files.layout import ProjectLayout
from qprd.predictions import (
    AREA_UM2,
    MAX_SCORE,
    MEAN_SCORE,
    OLD_TILE_NAME,
    PROBABILITY,
    REVIEW_RANK,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
    is_own_class,
    object_id,
)
from qprd.qupath.paquo_backend import PaquoProject

#: What `snapshot` gives: all of each object, by id.
Objects = dict[str, dict[str, Any]]


def edit_in_qupath(project: Path, entry_id: str, change: Callable[[Any], None]) -> None:
    """Open an entry as QuPath does, let `change` edit its hierarchy, save it as QuPath does."""
    from paquo._logging import redirect
    from paquo.java import BufferedImage, File, ProjectIO

    with redirect():
        entries = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()
        entry = next(entry for entry in entries if str(entry.getID()) == entry_id)
        data = entry.readImageData()
        change(data.getHierarchy())
        entry.saveImageData(data)


#: Polygons of no area that QuPath keeps, and mostly cannot export.
BROKEN_OUTLINES = {
    "two equal corners": [(10.0, 10.0), (10.0, 10.0)],
    "two corners": [(10.0, 10.0), (20.0, 20.0)],
    "one corner": [(10.0, 10.0)],
    "no number": [(10.0, 10.0), (math.nan, 50.0), (50.0, 10.0), (60.0, 60.0)],
}


def draw_broken_outlines(hierarchy: Any) -> None:
    """Add `BROKEN_OUTLINES` as annotations of class Tumor."""
    from paquo.java import ArrayList, JClass, PathClass, PathObjects, ROIs

    plane = JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    point = JClass("qupath.lib.geom.Point2")
    for name, corners in BROKEN_OUTLINES.items():
        points = ArrayList()
        for x, y in corners:
            points.add(point(x, y))
        outline = ROIs.createPolygonROI(points, plane)
        drawn = PathObjects.createAnnotationObject(outline, PathClass.fromString("Tumor"))
        drawn.setName(name)
        hierarchy.addObject(drawn)


def draw_nested_areas(class_name: str, hierarchy: Any) -> None:
    """Add an annotation whose geometry has one polygon inside another."""
    from paquo.java import GeometryTools, JClass, PathClass, PathObjects

    outer, inner = "((0 0, 100 0, 100 100, 0 100, 0 0))", "((20 20, 70 20, 70 70, 20 70, 20 20))"
    reader = JClass("org.locationtech.jts.io.WKTReader")()
    roi = GeometryTools.geometryToROI(reader.read(f"MULTIPOLYGON ({outer}, {inner})"))
    path_class = PathClass.fromString(class_name)
    hierarchy.addObject(PathObjects.createAnnotationObject(roi, path_class))


def snapshot(project: Path, entry_id: str) -> Objects:
    """All objects of an entry as QuPath reads them now, by id."""
    from paquo._logging import redirect
    from paquo.java import BufferedImage, File, PathCellObject, ProjectIO, WKBWriter

    def wkb(roi: Any) -> str | None:
        return None if roi is None else str(WKBWriter.toHex(WKBWriter().write(roi.getGeometry())))

    with redirect():
        entries = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()
        entry = next(entry for entry in entries if str(entry.getID()) == entry_id)
        hierarchy = entry.readImageData().getHierarchy()
        objects: Objects = {}
        for item in hierarchy.getFlattenedObjectList(None):
            if item.isRootObject():
                continue
            parent, path_class = item.getParent(), item.getPathClass()
            nucleus = item.getNucleusROI() if isinstance(item, PathCellObject) else None
            assert str(item.getID()) not in objects
            objects[str(item.getID())] = {
                "kind": str(item.getClass().getSimpleName()),
                "parent": None if parent.isRootObject() else str(parent.getID()),
                "roi": f"{item.getROI().getClass().getSimpleName()} {wkb(item.getROI())}",
                "nucleus": wkb(nucleus),
                "class": None if path_class is None else str(path_class),
                "color": None if path_class is None else int(path_class.getColor()),
                "name": None if item.getName() is None else str(item.getName()),
                "locked": bool(item.isLocked()),
                "metadata": {str(k): str(v) for k, v in item.getMetadata().items()},
                "measurements": {
                    str(name): float(value)
                    for name, value in zip(
                        item.getMeasurementList().getNames(),
                        item.getMeasurementList().values(),
                        strict=True,
                    )
                },
            }
    return objects


def is_own(item: dict[str, Any]) -> bool:
    if item["kind"] == "PathTileObject":
        return item["name"] in (None, OLD_TILE_NAME) and SCORE in item["measurements"]
    return (
        item["kind"] == "PathAnnotationObject"
        and is_own_class(item["class"])
        and MEAN_SCORE in item["measurements"]
    )


def of_others(objects: Objects) -> Objects:
    return {key: item for key, item in objects.items() if not is_own(item)}


def of_ours(objects: Objects) -> Objects:
    return {key: item for key, item in objects.items() if is_own(item)}


def write(project: Path, entry_number: int, predictions: Predictions) -> None:
    with PaquoProject(project) as opened:
        opened.write_predictions(opened.entries()[entry_number], predictions)


def work_like_a_person(hierarchy: Any) -> None:
    """2,000 cells with nuclei, nested annotations, a lock, names, measurements, a foreign tile."""
    from paquo.java import ArrayList, JClass, PathClass, PathObjects, ROIs, String

    plane = JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    rng = np.random.default_rng(0)
    cells = ArrayList()
    outer = PathObjects.createAnnotationObject(
        ROIs.createRectangleROI(100.0, 200.0, 900.5, 800.25, plane), PathClass.fromString("Stroma")
    )
    outer.setName("outer")
    inner = PathObjects.createAnnotationObject(
        ROIs.createEllipseROI(300.0, 400.0, 200.0, 150.0, plane)
    )
    inner.setName("inner \u00b5 \u2620 'quoted'")
    inner.setDescription("a description\nin two lines")
    inner.setLocked(True)
    inner.getMeasurementList().put(String("my measurement"), 1.25)
    point = PathObjects.createAnnotationObject(ROIs.createPointsROI(5.0, 7.0, plane))
    outer.addChildObject(inner)
    for number, (x, y) in enumerate(rng.random((2000, 2)) * [850, 750] + [110, 210]):
        cell = PathObjects.createCellObject(
            ROIs.createEllipseROI(float(x), float(y), 20.0, 18.0, plane),
            ROIs.createEllipseROI(float(x) + 5, float(y) + 5, 8.0, 8.0, plane),
            PathClass.fromString("Lymphocyte" if number % 2 else "Tumor: Positive"),
            None,
        )
        measurements = cell.getMeasurementList()
        measurements.put(String("Cell: Area"), float(rng.random()))
        measurements.put(String("qprd: score"), float(rng.random()))
        measurements.close()
        cells.add(cell)
    outer.addChildObjects(cells)
    # Neither is ours: one lacks our measurement, the other has a name that a person gave.
    unscored = PathObjects.createTileObject(ROIs.createRectangleROI(1.0, 2.0, 3.0, 4.0, plane))
    unscored.setName("qprd tile")
    named = PathObjects.createTileObject(ROIs.createRectangleROI(1.0, 2.0, 3.0, 4.0, plane))
    named.setName("named by a person")
    named.getMeasurementList().put(String("qprd: score"), 2.0)
    for item in (outer, point, unscored, named):
        hierarchy.addObject(item)


def file_bytes(project: Path) -> Mapping[str, bytes]:
    """All files of a project, by their path inside it, but for the lock, which stays."""
    root, lock = project.parent, ProjectLayout(project).lock
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path != lock
    }


def make_predictions(
    entry_id: str, tiles: int = 50, *, bundle: str = "bundle-1", seed: int = 0
) -> Predictions:
    """Random tiles, a contour with a hole, one not on QuPath's grid, two regions to review."""
    rng = np.random.default_rng(seed)
    donut = Polygon(
        [(100, 100), (900, 100), (900, 900), (100, 900)],
        [[(300, 300), (300, 600), (600, 600), (600, 300)]],
    )
    outlines = (donut, box(1000.123, 1000, 1200.456, 1300 + seed))
    return Predictions(
        tiles=tuple(
            PredictedTile(
                object_id(bundle, entry_id, "tile", number),
                float(x),
                float(y),
                127.5,
                127.5,
                {SCORE: float(score), PROBABILITY: float(score) / 6},
            )
            for number, (x, y, score) in enumerate(rng.random((tiles, 3)) * [1900, 8000, 6])
        ),
        contours=tuple(
            PredictedContour(
                object_id(bundle, entry_id, "contour", number),
                outline,
                f"qprd lesion {number}",
                {MEAN_SCORE: 3.3, MAX_SCORE: 5.1, AREA_UM2: outline.area * 0.25},
            )
            for number, outline in enumerate(outlines)
        ),
        metadata={"qprd: bundle": bundle, "qprd: slide score": "3.25"},
        review=tuple(
            ReviewRegion(
                object_id(bundle, entry_id, "review", number),
                box(1300, 200 * number, 1400.5, 200 * number + 100),
                f"{number + 1}",
                {MEAN_SCORE: 2.5, REVIEW_RANK: number + 1.0},
            )
            for number in range(2)
        ),
    )


def project_json(project: Path) -> dict[str, Any]:
    root = json.loads(project.read_text(encoding="utf-8"))
    assert isinstance(root, dict)
    return root
