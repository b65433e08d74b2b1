from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from qprd.evaluation.calibration import Platt
from qprd.evaluation.froc import match_detections
from qprd.evaluation.lesions import lesion_map
from qprd.evaluation.metrics import LabeledCells
from qprd.evaluation.overlap import Overlap
from qprd.evaluation.summary import NO_CALIBRATION, NO_THRESHOLD, Measured, MeasuredSlide, measure
from qprd.predictions import Detections

TUMOR = box(1000, 1000, 2000, 2000)  # 500 x 500 um


def cells(tumor: list[float], normal: list[float]) -> LabeledCells:
    scores = np.array([*tumor, *normal], np.float32)
    y = np.array([True] * len(tumor) + [False] * len(normal), np.bool_)
    return LabeledCells(y, scores, np.arange(y.size) * 1.0, np.zeros(y.size))


def slide(
    name: str = "a",
    *,
    tumor: list[float] = [3.0, 4.0],  # noqa: B006
    normal: list[float] = [1.0, 2.0],  # noqa: B006
    score: float | None = 4.0,
    overlap: Overlap | None = None,
) -> MeasuredSlide:
    drawn = TUMOR if tumor else Polygon()
    points = Detections(np.array([0.9, 0.2]), np.array([1500.0, 50.0]), np.array([1500.0, 50.0]))
    return MeasuredSlide(
        name=name,
        has_tumor=bool(tumor),
        slide_score=score,
        cells=cells(tumor, normal),
        matches=match_detections(points, lesion_map(drawn, 0.5)),
        isolated=0,
        outside=1,
        overlap=overlap,
        overlap_tissue=overlap,
    )


def values(measured: Measured) -> dict[str, float | None]:
    return {
        f"{level}.{name}": figure.value
        for level in ("patch", "slide", "froc", "pixel")
        for name, figure in getattr(measured, level).figures.items()
    }


def test_figures_of_a_hand_made_project() -> None:
    first = slide("a", tumor=[3.0, 4.0], normal=[1.0, 3.5], overlap=Overlap(4, 4, 2))
    second = slide("b", tumor=[2.0, 5.0], normal=[0.5], score=5.0, overlap=Overlap(2, 2, 2))
    third = slide("c", tumor=[], normal=[1.5, 2.5], score=2.5, overlap=Overlap(1, 0, 0))
    found = measure([first, second, third], threshold=2.5, probability_of=None)
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
        "froc.score": (3 / 4 + 5) / 6,
        "pixel.iou": 4 / (7 + 6 - 4),
        "pixel.dice": 8 / 13,
    }
    shown = values(found)
    assert {name: shown[name] for name in expected} == pytest.approx(expected)
    assert found.patch.counts == {"slides": 3, "tumor": 4, "normal": 5}
    assert found.slide.counts == {"tumor": 2, "normal": 1}
    assert found.froc.counts["lesions"] == 2
    assert found.froc.counts["detections_where_nothing_is_drawn"] == 3
    for level in (found.patch, found.froc, found.pixel):
        for name, figure in level.figures.items():
            if figure.interval is not None:
                assert figure.value is not None
                assert figure.interval.low <= figure.value <= figure.interval.high, name
                assert figure.reason is None


def test_every_figure_that_is_missing_says_why() -> None:
    nothing = replace(slide(tumor=[], normal=[]), slide_score=None)
    for slides in ([], [nothing], [slide(tumor=[])], [slide(normal=[])], [slide()]):
        for threshold in (None, 2.5):
            found = measure(slides, threshold=threshold, probability_of=None)
            for level in (found.patch, found.slide, found.froc, found.pixel):
                for name, figure in level.figures.items():
                    if figure.value is None or figure.interval is None:
                        assert figure.reason or name.startswith("sensitivity_at"), name


def test_the_reasons_are_the_right_ones() -> None:
    found = measure([slide(tumor=[])], threshold=None, probability_of=None)
    assert found.patch.figures["accuracy"].reason == NO_THRESHOLD
    assert found.pixel.figures["iou"].reason == NO_THRESHOLD
    assert found.patch.figures["expected_calibration_error"].reason == NO_CALIBRATION
    assert found.patch.figures["auroc"].reason == "there are no cells with tumor"
    assert found.slide.figures["auroc"].reason == "there are no slides with tumor"
    assert found.froc.figures["score"].reason == "no slide has a lesion that counts"
    assert found.patch_roc is found.patch_precision_recall is found.slide_roc is None


def test_slides_without_a_score_count_for_everything_else() -> None:
    found = measure([slide(), slide(score=None)], threshold=2.5, probability_of=None)
    assert found.slide.counts == {"tumor": 1, "normal": 0}
    assert found.patch.counts["slides"] == 2


def test_probabilities_are_compared_with_frequencies() -> None:
    sure = Platt(slope=0.0, intercept=0.0)
    found = measure([slide()], threshold=2.5, probability_of=sure.probability)
    # Everything gets .5, and half of it is tumor.
    assert found.patch.value("expected_calibration_error") == pytest.approx(0)
    assert sum(b.count for b in found.reliability) == 4


def test_probabilities_for_as_much_tumor_as_normal_are_judged_so() -> None:
    sure = Platt(slope=0.0, intercept=0.0)
    rare = slide(tumor=[3.0], normal=[1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    found = measure([rare], threshold=2.5, probability_of=sure.probability)
    assert found.patch.value("expected_calibration_error") == pytest.approx(0)
    assert sum(b.count for b in found.reliability) == 7
    one_class = measure([slide(tumor=[])], threshold=2.5, probability_of=sure.probability)
    figure = one_class.patch.figures["expected_calibration_error"]
    assert (figure.value, figure.reason) == (None, "there are no cells with tumor")
    assert one_class.reliability == ()


def test_raw_scores_may_be_anything() -> None:
    far = slide(tumor=[-3000.0, 7.0], normal=[-9000.0, -8000.0])
    found = measure([far], threshold=-5000.0, probability_of=None)
    assert found.patch.value("auroc") == found.patch.value("accuracy") == 1


def test_the_order_of_slides_does_not_matter() -> None:
    slides = [slide(str(i), tumor=[2.0, 3.0 + i], normal=[0.5 * i]) for i in range(3)]
    forward, backward = (
        values(measure(order, threshold=2.5, probability_of=None))
        for order in (slides, slides[::-1])
    )
    assert forward == pytest.approx(backward)
