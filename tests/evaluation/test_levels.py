from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from qprd.evaluation.calibration import Platt
from qprd.evaluation.cells import LabeledCells
from qprd.evaluation.froc import match_points
from qprd.evaluation.lesions import lesion_map
from qprd.evaluation.levels import (
    MEASURED_IN,
    NO_CALIBRATION,
    NO_THRESHOLD,
    LevelMetrics,
    SlideComparison,
    lesion_metrics,
    patch_metrics,
    pixel_metrics,
    slide_metrics,
)
from qprd.evaluation.overlap import Overlap
from qprd.predictions import LesionPoints

TUMOR = box(1000, 1000, 2000, 2000)  # 500 x 500 um


def cells(tumor: list[float], normal: list[float]) -> LabeledCells:
    scores = np.array([*tumor, *normal], np.float32)
    y = np.array([True] * len(tumor) + [False] * len(normal), np.bool_)
    return LabeledCells(y, scores, np.arange(y.size, dtype=np.float64), np.zeros(y.size))


def slide(
    *,
    tumor: list[float] = [3.0, 4.0],  # noqa: B006
    normal: list[float] = [1.0, 2.0],  # noqa: B006
    score: float | None = 4.0,
    overlap: Overlap | None = None,
) -> SlideComparison:
    drawn = TUMOR if tumor else Polygon()
    points = LesionPoints(np.array([0.9, 0.2]), np.array([1500.0, 50.0]), np.array([1500.0, 50.0]))
    return SlideComparison(
        has_tumor=bool(tumor),
        slide_score=score,
        cells=cells(tumor, normal),
        matches=match_points(points, lesion_map(drawn, 0.5)),
        n_isolated=0,
        n_unjudged=1,
        overlaps={} if overlap is None else dict.fromkeys(MEASURED_IN, overlap),
    )


def all_levels(
    slides: list[SlideComparison], *, threshold: float | None
) -> dict[str, LevelMetrics]:
    return {
        "patch": patch_metrics(slides, threshold=threshold, probability_of=None),
        "slide": slide_metrics(slides),
        "lesion": lesion_metrics(slides),
        "pixel": pixel_metrics(slides),
    }


def values(slides: list[SlideComparison], *, threshold: float | None) -> dict[str, float | None]:
    return {
        f"{level}.{name}": value
        for level, metrics in all_levels(slides, threshold=threshold).items()
        for name, value in metrics.values().items()
    }


def test_metrics_of_a_hand_made_project() -> None:
    slides = [
        slide(tumor=[3.0, 4.0], normal=[1.0, 3.5], overlap=Overlap(4, 4, 2)),
        slide(tumor=[2.0, 5.0], normal=[0.5], score=5.0, overlap=Overlap(2, 2, 2)),
        slide(tumor=[], normal=[1.5, 2.5], score=2.5, overlap=Overlap(1, 0, 0)),
    ]
    found = all_levels(slides, threshold=2.5)
    # Tumor 2, 3, 4, 5; normal .5, 1, 1.5, 2.5, 3.5: 20 pairs, of which 2 < 2.5, 3.5 and 3 < 3.5.
    expected = {
        "patch.auroc": 17 / 20,
        "patch.sensitivity": 3 / 4,
        "patch.specificity": 3 / 5,
        "patch.accuracy": 6 / 9,
        "patch.balanced_accuracy": (3 / 4 + 3 / 5) / 2,
        "slide.auroc": 1.0,
        "slide.average_precision": 1.0,
        # At .9 both lesions are hit, and the third slide has a false positive: 1/3 a slide.
        "lesion.froc_score": (3 / 4 + 5) / 6,
        "lesion.sensitivity_at_0.25": 3 / 4,
        "pixel.iou": 4 / (7 + 6 - 4),
        "pixel.dice": 8 / 13,
    }
    shown = values(slides, threshold=2.5)
    assert {name: shown[name] for name in expected} == pytest.approx(expected)
    assert found["patch"].measured_on == {"slides": 3, "tumor": 4, "normal": 5}
    assert found["slide"].measured_on == {"tumor": 2, "normal": 1}
    assert found["lesion"].measured_on["lesions"] == 2
    assert found["lesion"].measured_on["detections_where_nothing_is_drawn"] == 3
    for metrics in found.values():
        for name, interval in metrics.intervals.items():
            value = metrics.values()[name]
            assert value is not None
            assert interval.low <= value <= interval.high, name
            assert name not in metrics.reasons
    assert set(found["pixel"].intervals) == set(found["pixel"].labels())
    assert set(found["lesion"].intervals) == {"froc_score", "froc_score_scored"}


def test_a_lesion_and_areas_without_a_score_are_missed_beside_the_figures_of_what_was_scored() -> (
    None
):
    hit = slide(overlap=Overlap(4, 4, 2))
    lost = replace(
        hit,
        matches=match_points(LesionPoints(*np.empty((3, 0))), lesion_map(TUMOR, 0.5)),
        is_scored=np.array([False]),
        overlaps=dict.fromkeys(MEASURED_IN, Overlap(0, 4, 0)) | {"_scored": Overlap()},
    )
    lesion, pixel = lesion_metrics([hit, lost]), pixel_metrics([hit, lost])
    assert lesion.measured_on["lesions_not_scored"] == 1
    assert lesion.froc_score == pytest.approx(0.5)
    assert lesion.froc_score_scored == pytest.approx(1.0)
    assert (pixel.iou, pixel.iou_scored) == pytest.approx((2 / 10, 2 / 6))
    assert (pixel.sensitivity, pixel.sensitivity_scored) == pytest.approx((2 / 8, 2 / 4))


def test_every_metric_that_is_missing_says_why() -> None:
    nothing = replace(slide(tumor=[], normal=[]), slide_score=None)
    for slides in ([], [nothing], [slide(tumor=[])], [slide(normal=[])], [slide()]):
        for threshold in (None, 2.5):
            for metrics in all_levels(slides, threshold=threshold).values():
                assert set(metrics.values()) == set(metrics.labels())
                for name, value in metrics.values().items():
                    if value is None or name not in metrics.intervals:
                        assert metrics.reasons.get(name) or name.startswith("sensitivity_at"), name


def test_the_reasons_are_the_right_ones() -> None:
    found = all_levels([slide(tumor=[])], threshold=None)
    patch = patch_metrics([slide(tumor=[])], threshold=None, probability_of=None)
    assert patch.reasons["accuracy"] == NO_THRESHOLD
    assert patch.reasons["expected_calibration_error"] == NO_CALIBRATION
    assert patch.reasons["auroc"] == "there are no cells with tumor"
    assert patch.roc is patch.precision_recall is None
    assert found["pixel"].reasons["iou"] == NO_THRESHOLD
    assert found["slide"].reasons["auroc"] == "there are no slides with tumor"
    assert slide_metrics([slide(tumor=[])]).roc is None
    assert found["lesion"].reasons["froc_score"] == "no slide has a lesion that counts"


def test_slides_without_a_score_count_for_everything_else() -> None:
    found = all_levels([slide(), slide(score=None)], threshold=2.5)
    assert found["slide"].measured_on == {"tumor": 1, "normal": 0}
    assert found["patch"].measured_on["slides"] == 2


def test_probabilities_are_compared_with_frequencies() -> None:
    sure = Platt(slope=0.0, intercept=0.0)
    found = patch_metrics([slide()], threshold=2.5, probability_of=sure.probability)
    # Everything gets .5, and half of it is tumor.
    assert found.expected_calibration_error == pytest.approx(0)
    assert sum(b.count for b in found.reliability) == 4


def test_probabilities_for_as_much_tumor_as_normal_are_judged_so() -> None:
    sure = Platt(slope=0.0, intercept=0.0)
    rare = slide(tumor=[3.0], normal=[1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    found = patch_metrics([rare], threshold=2.5, probability_of=sure.probability)
    assert found.expected_calibration_error == pytest.approx(0)
    assert sum(b.count for b in found.reliability) == 7
    one_class = patch_metrics([slide(tumor=[])], threshold=2.5, probability_of=sure.probability)
    assert one_class.expected_calibration_error is None
    assert one_class.reasons["expected_calibration_error"] == "there are no cells with tumor"
    assert one_class.reliability == ()


def test_raw_scores_may_be_anything() -> None:
    far = slide(tumor=[-3000.0, 7.0], normal=[-9000.0, -8000.0])
    found = patch_metrics([far], threshold=-5000.0, probability_of=None)
    assert found.auroc == found.accuracy == 1


def test_the_order_of_slides_does_not_matter() -> None:
    slides = [slide(tumor=[2.0, 3.0 + i], normal=[0.5 * i]) for i in range(3)]
    forward, backward = (values(order, threshold=2.5) for order in (slides, slides[::-1]))
    assert forward == pytest.approx(backward)
