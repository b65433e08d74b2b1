"""The part of a slide whose truth is known, and lesion points elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import box

from qprd.evaluation.froc import match_points
from qprd.evaluation.lesions import lesion_map
from qprd.jobs.evaluate.slide import (
    _where_truth_is_known,
    drawn_by_people,
    is_annotated,
    known_region,
)
from qprd.predictions import LesionPoints
from qprd.qupath.project import Annotation
from qprd.sampling.regions import LabelRegions, label_regions
from qprd.slides.tissue import TissueMask
from tests.helpers.drawn_project import training

WIDTH, HEIGHT, MPP = 4000, 3000, 0.5
TUMOR, NORMAL, IGNORED = (
    box(500, 500, 1500, 1500),
    box(2000, 500, 2600, 1500),
    box(3000, 500, 3600, 1500),
)
ALL_TISSUE = TissueMask(np.ones((30, 40), dtype=bool), 100.0, MPP)
#: In tumor, beside it, in normal, in ignored tissue, where nothing is drawn.
X = np.array([1000.0, 1530.0, 2300.0, 3300.0, 2300.0])
Y = np.array([1000.0, 1000.0, 1000.0, 1000.0, 2500.0])


def drawn(geometry: shapely.Geometry, class_name: str, **more: object) -> Annotation:
    return Annotation(class_name, geometry, class_name, **more)  # type: ignore[arg-type]


def regions(*annotations: Annotation) -> LabelRegions:
    config = training(margin_um=200)
    return label_regions(annotations, WIDTH, HEIGHT, mpp=MPP, config=config, tissue=ALL_TISSUE)


@pytest.mark.parametrize(
    ("with_normal", "false", "unknown"),
    [(True, [2], 2), (False, [2, 4], 1)],
)
def test_lesion_points_are_false_only_where_somebody_would_have_drawn_tumor(
    with_normal: bool, false: list[int], unknown: int
) -> None:
    annotations = [drawn(TUMOR, "Tumor"), drawn(IGNORED, "Ignore*")]
    annotations += [drawn(NORMAL, "Normal")] * with_normal
    found = regions(*annotations)
    known = known_region(found, WIDTH, HEIGHT)
    points = LesionPoints(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), X, Y)
    judged, outside = _where_truth_is_known(
        match_points(points, lesion_map(found.tumor_region, MPP)), points, known
    )
    # The one beside tumor is in the grown lesion.
    assert judged.best_scores.tolist() == [0.9]
    assert judged.false_positives.tolist() == false
    assert judged.false_positive_scores.tolist() == points.scores[false].tolist()
    assert outside == unknown


def test_without_normal_tissue_drawn_the_margin_of_tumor_is_known_too() -> None:
    found = regions(drawn(TUMOR, "Tumor"))
    margin = box(1510, 500, 1600, 1500)
    assert not found.normal_region.intersects(margin)
    assert known_region(found, WIDTH, HEIGHT).covers(margin)


def test_who_drew_what() -> None:
    config = training()
    pending = drawn(TUMOR, "Tumor: qprd", predicted=True)
    accepted = drawn(TUMOR, "Tumor", predicted=True)
    assert drawn_by_people([pending, accepted]) == [accepted]
    assert is_annotated(["Normal"], config)
    assert is_annotated(["Tumor: invasive"], config)
    assert not is_annotated(["Ignore*", "Stroma", "Tumor: qprd", "Tumor: old*", None], config)
    assert is_annotated([], training(unannotated_normal=True))


def test_what_is_drawn_without_meaning_either_is_not_known() -> None:
    found = regions(drawn(TUMOR, "Tumor"), drawn(NORMAL, "Stroma"))
    known = known_region(found, WIDTH, HEIGHT)
    assert known.intersection(NORMAL).area == 0
    assert known.covers(TUMOR)
    assert not found.normal_region.intersects(NORMAL)


def test_only_areas_that_were_looked_at_are_known() -> None:
    looked_at = box(0, 0, 2000, 2000)
    found = regions(drawn(TUMOR, "Tumor"), drawn(looked_at, "Region*"))
    assert known_region(found, WIDTH, HEIGHT).equals(looked_at)
