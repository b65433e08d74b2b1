"""One slide's predictions beside what was drawn on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.evaluation.froc import Matches, match_detections
from qprd.evaluation.lesions import lesion_map
from qprd.evaluation.metrics import labeled_cells
from qprd.evaluation.overlap import polygon_overlap
from qprd.evaluation.summary import MeasuredSlide
from qprd.evaluation.worst import Mistake, worst_mistakes
from qprd.jobs.train.patches import slide_regions
from qprd.predictions import Detections, is_own_class
from qprd.qupath.entry_slides import frame_of, require_same_frame
from qprd.qupath.project import Annotation, Entry
from qprd.results.folder import (
    load_detections,
    load_predictions,
    load_score_map,
    load_slide_result,
)
from qprd.sampling.regions import LabelRegions, is_derived, is_ignored_class
from qprd.settings import TrainConfig

#: Two mistakes shown lie this many patches apart.
_PATCHES_APART = 2.0
#: Two resolutions that differ by this share are the same at another rounding.
_SAME_MPP = 1e-3


@dataclass(frozen=True)
class EvaluatedSlide:
    """What is kept of one slide while the others are read.

    Attributes:
        entry: The slide.
        measured: Its predictions beside its truth.
        predicted: When, ISO 8601, UTC.
        threshold: Of its contours; None if there were none.
        contours: How many.
        lesions: How many count.
        mpp: Micrometres per level-0 pixel.
        cell_px: Edge of a cell in level-0 pixels.
        tumor: What was drawn.
        false_positives: The worst, worst first.
        misses: Likewise.
        notes: What was drawn but not used, or not as drawn, with the slide's name.
    """

    entry: Entry
    measured: MeasuredSlide
    predicted: str
    threshold: float | None
    contours: int
    lesions: int
    mpp: float
    cell_px: float
    tumor: BaseGeometry
    false_positives: tuple[Mistake, ...]
    misses: tuple[Mistake, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationRules:
    """How slides are compared with what was drawn.

    Attributes:
        config: Classes and rules of the training that made the bundle.
        threshold: A cell counts as tumor from this raw score; None if there is none.
        patch_um: Edge of a patch.
        most: Mistakes of each kind kept of a slide.
    """

    config: TrainConfig
    threshold: float | None
    patch_um: float
    most: int


def drawn_by_people(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Annotations without the contours that qprd wrote and nobody judged.

    To training they are places to keep away from. Here they are what is to be judged: without this,
    false positives would vanish from the tissue that counts as normal.
    """
    return [a for a in annotations if not is_own_class(a.class_name)]


def marks_tumor(annotations: Sequence[Annotation], config: TrainConfig) -> bool:
    """Something is of a tumor class, be it a point or a line."""
    return _has(annotations, config.tumor_class)


def is_annotated(annotations: Sequence[Annotation], config: TrainConfig) -> bool:
    """Something says what is tumor or normal on the slide."""
    return config.unannotated_normal or _has(annotations, config.tumor_class + config.normal_class)


def _has(annotations: Sequence[Annotation], classes: Sequence[str]) -> bool:
    return any(
        is_derived(a.class_name, classes) and not is_ignored_class(a.class_name)
        for a in annotations
    )


def evaluate_slide(
    entry: Entry, annotations: Sequence[Annotation], folder: Path, rules: EvaluationRules
) -> EvaluatedSlide:
    """Compare the results of one slide with its annotations.

    Args:
        entry: The slide; its tissue is found anew.
        annotations: From `drawn_by_people`.
        folder: Its results.
        rules: Those of all slides.

    Raises:
        QprdError: the slide or its results cannot be read, or its resolution or frame is not that
            of the prediction.
    """
    result, score_map = load_slide_result(folder), load_score_map(folder)
    require_same_frame(entry, result.frame, frame_of(entry))
    contours = [contour.polygon for contour in load_predictions(folder).contours]
    notes: list[str] = []
    # A resolution that had to be assumed is that of the prediction, unless told otherwise.
    assumed = {"assume_mpp": rules.config.assume_mpp or score_map.mpp}
    slide = slide_regions(entry, annotations, rules.config.model_copy(update=assumed), notes)
    if not math.isclose(slide.mpp, score_map.mpp, rel_tol=_SAME_MPP):
        raise QprdError(
            f"It was predicted at {score_map.mpp:.4g} um/px, and has {slide.mpp:.4g} um/px now.",
            fix="Run qprd predict again, or give the same --assume-mpp to both.",
        )
    regions = slide.regions
    known = known_region(regions, slide.width, slide.height)
    cells = labeled_cells(score_map, regions.tumor, regions.normal)

    overlap = overlap_tissue = None
    if result.threshold is not None:
        found = shapely.union_all(shapely.make_valid(contours))
        assert slide.tissue is not None
        everywhere = shapely.difference(slide.tissue.to_polygons(), regions.ignored)
        um2 = slide.mpp**2
        in_known = shapely.intersection(everywhere, known)
        overlap = polygon_overlap(found, regions.tumor, within=in_known).scaled(um2)
        overlap_tissue = polygon_overlap(found, regions.tumor, within=everywhere).scaled(um2)

    points = load_detections(folder)
    lesions = lesion_map(regions.tumor, slide.mpp)
    matches, outside = _where_truth_is_known(match_detections(points, lesions), points, known)

    false_positives: list[Mistake] = []
    misses: list[Mistake] = []
    if rules.threshold is not None:
        apart_px = _PATCHES_APART * max(rules.patch_um / slide.mpp, score_map.cell_px)
        false_positives, misses = worst_mistakes(
            cells, rules.threshold, most=rules.most, apart_px=apart_px
        )
    return EvaluatedSlide(
        entry=entry,
        measured=MeasuredSlide(
            name=entry.name,
            has_tumor=marks_tumor(annotations, rules.config),
            slide_score=result.slide_score,
            cells=cells,
            matches=matches,
            isolated=int(lesions.is_itc.sum()),
            outside=outside,
            overlap=overlap,
            overlap_tissue=overlap_tissue,
        ),
        predicted=result.created,
        threshold=result.threshold,
        contours=len(contours),
        lesions=len(lesions.lesions),
        mpp=slide.mpp,
        cell_px=score_map.cell_px,
        tumor=regions.tumor,
        false_positives=tuple(false_positives),
        misses=tuple(misses),
        notes=tuple(notes),
    )


def known_region(regions: LabelRegions, width: int, height: int) -> BaseGeometry:
    """Where a person has said, if only by leaving it out, whether there is tumor.

    With normal tissue drawn, that and the tumor is all that is known. Without, all tumor of the
    slide is taken to be drawn, and the rest is normal, the margin around tumor too.
    """
    if regions.normal_source == "tissue":
        return shapely.difference(shapely.box(0, 0, width, height), regions.ignored)
    return shapely.union(regions.tumor, regions.normal)


def _where_truth_is_known(
    matches: Matches, points: Detections, known: BaseGeometry
) -> tuple[Matches, int]:
    """Without the false positives of which nobody knows whether they are, and their number."""
    shapely.prepare(known)
    at = matches.false_positives
    is_known = np.asarray(shapely.contains_xy(known, points.x[at], points.y[at]), dtype=np.bool_)
    judged = replace(
        matches,
        false_positives=at[is_known],
        false_positive_scores=matches.false_positive_scores[is_known],
    )
    return judged, int((~is_known).sum())
