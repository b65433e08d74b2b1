"""Comparison of one slide's predictions with what was drawn on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
import shapely.affinity
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from qprd.errors import QprdError
from qprd.evaluation.cells import labeled_cells
from qprd.evaluation.froc import Matches, match_points
from qprd.evaluation.lesions import lesion_map
from qprd.evaluation.levels import MEASURED_IN, SlideComparison
from qprd.evaluation.metrics import auroc, sensitivity, specificity
from qprd.evaluation.mistakes import Mistake, worst_mistakes
from qprd.evaluation.overlap import Coverage, Overlap, polygon_overlap
from qprd.jobs.train.patches import slide_regions
from qprd.predictions import LesionPoints, is_own_class
from qprd.qupath.entry_slides import require_same_image
from qprd.qupath.project import Annotation, Entry
from qprd.results.arrays import load_score_map, load_tissue
from qprd.results.folder import load_lesion_points, load_predictions, load_slide_result
from qprd.sampling.classes import has_drawn
from qprd.sampling.regions import LabelRegions
from qprd.settings import TrainConfig
from qprd.slides.tissue import TissueMask

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

#: Mistakes of each kind that are shown.
MISTAKES_SHOWN = 8
#: Distance between two mistakes that are shown, in patches.
_PATCHES_APART = 2.0
#: Resolutions that differ by less than this share are the same, rounded differently.
_SAME_MPP = 1e-3


@dataclass(frozen=True)
class SlideReport:
    """The figures of one slide, as the JSON report has them.

    A figure that is None is undefined, such as an AUROC without normal cells or a sensitivity
    without a threshold.

    Attributes:
        used_for: What the model used it for: ``train``, ``val`` or ``nothing``.
        slide_score: Raw score.
        auroc: Of the cells, as are sensitivity and specificity at the threshold.
        lesions_hit_at_threshold: Lesions with a lesion point at or above the threshold.
        false_positives_at_threshold: Such lesion points outside of tumor.
        iou: Of contours and drawn tumor where the truth is known, as is ``dice``.
        iou_scored: As ``iou``, but only in tissue that was scored.
        lesions_not_scored: Lesions without any score, which are missed.
        not_scored: How much of the drawn ``tumor`` and ``normal`` tissue was not scored.
    """

    entry_id: str
    image: str
    used_for: str
    has_tumor: bool
    slide_score: float | None
    tumor_cells: int
    normal_cells: int
    auroc: float | None
    sensitivity: float | None
    specificity: float | None
    lesions: int
    lesions_hit_at_threshold: int | None
    false_positives_at_threshold: int | None
    contours: int
    iou: float | None
    dice: float | None
    iou_scored: float | None
    lesions_not_scored: int
    not_scored: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class EvaluatedSlide:
    """What is kept of one slide while the others are read.

    Attributes:
        threshold: Raw score at which its contours were drawn.
        cell_px: Edge of a cell in level-0 pixels.
        false_positives: The worst ones, worst first, as in ``misses``.
        notes: What was drawn but not used, or not as drawn, with the slide's name.
    """

    entry: Entry
    comparison: SlideComparison
    report: SlideReport
    threshold: float | None
    mpp: float
    cell_px: float
    tumor_region: BaseGeometry
    false_positives: tuple[Mistake, ...]
    misses: tuple[Mistake, ...]
    notes: tuple[str, ...]


def drawn_by_people(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Leave out the contours that qprd wrote and nobody has reviewed.

    Training keeps away from them. Here they are what is evaluated: if they counted as drawn, false
    positives would vanish from the tissue that counts as normal.
    """
    return [a for a in annotations if not is_own_class(a.class_name)]


def is_annotated(class_names: Iterable[str | None], config: TrainConfig) -> bool:
    """True if a class of a slide's annotations says what is tumor or normal on it."""
    labels = config.tumor_class + config.normal_class
    return config.unannotated_normal or has_drawn(class_names, labels)


def evaluate_slide(
    entry: Entry,
    annotations: Sequence[Annotation],
    folder: Path,
    info: BundleInfo,
    *,
    config: TrainConfig,
    threshold: float | None,
) -> EvaluatedSlide:
    """Compare the results of one slide with its annotations, which `drawn_by_people` has chosen.

    Its tissue is that of the prediction.

    Raises:
        QprdError: The slide or its results cannot be read, or its resolution or frame is not that
            of the prediction.
    """
    result, score_map = load_slide_result(folder), load_score_map(folder)
    tissue_then = load_tissue(folder)
    require_same_image(entry, result.slide, result.frame)
    contours = [contour.polygon for contour in load_predictions(folder).contours]
    notes: list[str] = []
    if tissue_then is None:
        notes.append(
            f"{entry.name}: its results do not say where tissue was found, as an earlier qprd made "
            "them; it is found anew by the settings of the training"
        )
    # A resolution that has to be assumed is that of the prediction, unless another one is given.
    as_predicted: dict[str, object] = {"assume_mpp": config.assume_mpp or score_map.mpp}
    if result.tissue_class is not None:
        as_predicted["tissue_class"] = result.tissue_class
    config = config.model_copy(update=as_predicted)
    slide = slide_regions(entry, annotations, config, notes, tissue_then)
    if not math.isclose(slide.mpp, score_map.mpp, rel_tol=_SAME_MPP):
        raise QprdError(
            f"It was predicted at {score_map.mpp:.4g} um/px, and has {slide.mpp:.4g} um/px now.",
            fix="Run qprd predict again, or give the same --assume-mpp to both.",
        )
    regions = slide.regions
    known = known_region(regions, slide.width, slide.height)
    cells = labeled_cells(score_map, regions.tumor_region, regions.normal_region)

    assert slide.tissue is not None
    tumor, um2 = regions.tumor_region, slide.mpp**2
    tissue = shapely.difference(slide.tissue.to_polygons(), regions.ignored)
    has_score = ~np.isnan(score_map.scores)
    cells_px = TissueMask(has_score, score_map.cell_px).to_polygons()
    scored = shapely.affinity.translate(cells_px, score_map.x, score_map.y)
    drawn_normal = regions.normal_region if regions.normal_source == "annotations" else Polygon()
    overlaps: dict[str, Overlap] = {}
    if result.threshold is not None:
        found = shapely.union_all(shapely.make_valid(contours))
        # What a person drew as tumor is tumor, even where no tissue was found.
        all_tissue = shapely.union(tissue, tumor)
        known_tissue = shapely.intersection(all_tissue, known)
        known_scored = shapely.intersection(shapely.intersection(tissue, known), scored)
        overlaps = {
            name: polygon_overlap(found, tumor, within=within).scaled(um2)
            for name, within in zip(
                MEASURED_IN, (known_tissue, known_scored, all_tissue), strict=True
            )
        }

    points = load_lesion_points(folder)
    lesions = lesion_map(tumor, slide.mpp)
    matches, n_unjudged = _where_truth_is_known(match_points(points, lesions), points, known)
    comparison = SlideComparison(
        # Even a point or a line says that there is tumor.
        has_tumor=has_drawn((one.class_name for one in annotations), config.tumor_class),
        slide_score=result.slide_score,
        cells=cells,
        matches=matches,
        n_isolated=int(lesions.is_itc.sum()),
        n_unjudged=n_unjudged,
        overlaps=overlaps,
        is_scored=np.isin(
            lesions.lesions, lesions.labels_at(*score_map.centers(*np.nonzero(has_score)))
        ),
        tumor_mm2=Coverage.of(tumor, scored, tissue, slide.mpp),
        normal_mm2=Coverage.of(drawn_normal, scored, tissue, slide.mpp),
    )
    false_positives: list[Mistake] = []
    misses: list[Mistake] = []
    if threshold is not None:
        apart_px = _PATCHES_APART * max(info.network.patch_um / slide.mpp, score_map.cell_px)
        false_positives, misses = worst_mistakes(
            cells, threshold, limit=MISTAKES_SHOWN, apart_px=apart_px
        )
    return EvaluatedSlide(
        entry=entry,
        comparison=comparison,
        report=_report(
            entry,
            comparison,
            info,
            threshold,
            used_for=info.training.use_of(slide.identity) or "nothing",
            contours=len(contours),
        ),
        threshold=result.threshold,
        mpp=slide.mpp,
        cell_px=score_map.cell_px,
        tumor_region=regions.tumor_region,
        false_positives=tuple(false_positives),
        misses=tuple(misses),
        notes=tuple(notes),
    )


def _report(
    entry: Entry,
    found: SlideComparison,
    info: BundleInfo,
    at: float | None,
    *,
    used_for: str,
    contours: int,
) -> SlideReport:
    y_true, scores = found.cells.y_true, found.cells.scores
    points_at, probability_of = at, info.scoring.probability_of
    if at is not None and probability_of is not None:
        # Lesion points have probabilities if there is a calibration.
        points_at = float(probability_of(at))
    overlap = found.overlaps.get("", Overlap())
    hits, false_positives = found.matches.best_scores, found.matches.false_positive_scores
    return SlideReport(
        entry_id=entry.id,
        image=entry.name,
        used_for=used_for,
        has_tumor=found.has_tumor,
        slide_score=found.slide_score,
        tumor_cells=int(y_true.sum()),
        normal_cells=int((~y_true).sum()),
        auroc=auroc(y_true, scores),
        sensitivity=None if at is None else sensitivity(y_true, scores, at),
        specificity=None if at is None else specificity(y_true, scores, at),
        lesions=len(found.matches.best_scores),
        lesions_hit_at_threshold=None if points_at is None else int((hits >= points_at).sum()),
        false_positives_at_threshold=(
            None if points_at is None else int((false_positives >= points_at).sum())
        ),
        contours=contours,
        iou=overlap.iou,
        dice=overlap.dice,
        iou_scored=found.overlaps.get("_scored", Overlap()).iou,
        lesions_not_scored=len(hits) - len(found.scored_matches.best_scores),
        not_scored={"tumor": found.tumor_mm2.figures(), "normal": found.normal_mm2.figures()},
    )


def known_region(regions: LabelRegions, width: int, height: int) -> BaseGeometry:
    """The part of the slide of which a person has said whether it is tumor.

    If normal tissue is drawn, only that and the drawn tumor are known. If not, all tumor of the
    slide counts as drawn and the rest as normal, the margin around tumor included; where areas are
    outlined (``Region*``), the rest of these. What is drawn without meaning either is not known.
    """
    if regions.normal_source != "tissue":
        return shapely.union(regions.tumor_region, regions.normal_region)
    looked_at: BaseGeometry = shapely.box(0, 0, width, height)
    if not regions.areas.is_empty:
        looked_at = shapely.union(regions.areas, regions.tumor_region)
    unlabeled = shapely.difference(regions.unlabeled, regions.tumor_region)
    return shapely.difference(looked_at, shapely.union(regions.ignored, unlabeled))


def _where_truth_is_known(
    matches: Matches, points: LesionPoints, known: BaseGeometry
) -> tuple[Matches, int]:
    """Leave out the false positives where nothing was drawn; also their number."""
    shapely.prepare(known)
    at = matches.false_positives
    is_known = np.asarray(shapely.contains_xy(known, points.x[at], points.y[at]), dtype=np.bool_)
    judged = replace(
        matches,
        false_positives=at[is_known],
        false_positive_scores=matches.false_positive_scores[is_known],
    )
    return judged, int((~is_known).sum())
