"""Results on the real colon slides, of made-up scores: smooth, and high in drawn tumor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from qprd.files.layout import ProjectLayout
from qprd.predictions import LesionPoints, Predictions, ScoreMap
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.geojson import read_annotations
from qprd.results.contours import contours
from qprd.results.folder import SlideResult, save_result
from qprd.results.objects import predicted_objects
from qprd.scoring.cells import cells_in_tissue
from qprd.slides.slide import Slide, grid_size
from qprd.slides.tissue import tissue_mask

BUNDLE = "new"
CELL_PX = 64
#: Others than the defaults, which scripts would take if they did not read those of the result.
MIN_AREA_UM2, TOLERANCE_UM = 1500.0, 2.0
THRESHOLD = 0.25


def probability_of(scores: NDArray[Any]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-4 * (np.asarray(scores, np.float64) - THRESHOLD)))


def made_up(slide: Slide, annotations: Path) -> ScoreMap:
    columns, rows = grid_size(slide.width, slide.height, CELL_PX)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * CELL_PX, (np.arange(rows) + 0.5) * CELL_PX)
    tumor = np.zeros((rows, columns), bool)
    for annotation in read_annotations(annotations):
        if annotation.class_name == "Tumor":
            tumor |= shapely.contains_xy(annotation.geometry, x, y)
    random = np.random.default_rng(7).normal(size=(rows, columns))
    scores = ndimage.gaussian_filter(tumor.astype(float), 1) + ndimage.gaussian_filter(random, 1.5)
    wanted = cells_in_tissue(tissue_mask(slide), CELL_PX, columns, rows, 0.5)
    return ScoreMap(
        np.where(wanted, scores, np.nan).astype(np.float32), 0.0, 0.0, CELL_PX, slide.mpp or 0.5
    )


def predicted(
    score_map: ScoreMap, entry_id: str, threshold: float, size: tuple[int, int]
) -> Predictions:
    polygons = contours(
        score_map,
        threshold,
        size,
        min_area_um2=MIN_AREA_UM2,
        tolerance_um=TOLERANCE_UM,
        probability_of=probability_of,
    )
    return predicted_objects(
        score_map,
        polygons,
        bundle=BUNDLE,
        entry_id=entry_id,
        size=size,
        tumor_class="Tumor",
        probability_of=probability_of,
        metadata={"qprd: bundle": BUNDLE, "qprd: threshold": f"{threshold:.4f}"},
    )


def score_project(project: Path, shared_data: Path) -> dict[str, tuple[ScoreMap, Predictions]]:
    """Save results of both slides, and put them where the scripts find them; by entry id."""
    made: dict[str, tuple[ScoreMap, Predictions]] = {}
    with ExchangeProject(project) as opened:
        for entry in opened.entries():
            with Slide(shared_data / "slides" / entry.name) as slide:
                annotations = shared_data / f"qupath/colon/annotations/{entry.name}.geojson"
                score_map = made_up(slide, annotations)
                frame = slide.frame
            own = predicted(score_map, entry.id, THRESHOLD, (frame.width, frame.height))
            save_result(
                ProjectLayout(project).result(entry.id),
                SlideResult(
                    entry_id=entry.id,
                    image=entry.name,
                    bundle=BUNDLE,
                    created="",
                    slide_score=1.0,
                    threshold=THRESHOLD,
                    tissue_um2=1.0,
                    tumor_um2=1.0,
                    tiles=len(own.tiles),
                    contours=len(own.contours),
                    mpp=score_map.mpp,
                    seconds=1.0,
                    frame=frame,
                    min_area_um2=MIN_AREA_UM2,
                    tolerance_um=TOLERANCE_UM,
                ),
                score_map,
                own,
                probabilities=probability_of(score_map.scores),
                lesion_points=LesionPoints(np.empty(0), np.empty(0), np.empty(0)),
                overview=b"",
            )
            opened.write_predictions(entry, own)
            made[entry.id] = (score_map, own)
    return made
