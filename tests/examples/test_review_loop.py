"""The reviewer of the example, and one small round of it on the colon project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oracle import Truth, answered_features, answers, drawn_features
from review_loop import Loop, Plan, Row, table
from shapely.geometry import MultiPolygon, Polygon, box

from qprd.predictions import (
    MEAN_PROBABILITY,
    MEAN_SCORE,
    REVIEW_RANK,
    PredictedContour,
    Predictions,
    ReviewRegion,
)
from qprd.progress import SilentProgress
from qprd.qupath.geojson import read_annotations
from qprd.review import figures, training_plot
from qprd.sampling.regions import label_regions

TRUTH = Truth(MultiPolygon([box(0, 0, 100, 100)]), MultiPolygon([box(100, 0, 200, 100)]))


def contour(polygon: Polygon, probability: float) -> PredictedContour:
    return PredictedContour("c", polygon, None, {MEAN_SCORE: 1.0, MEAN_PROBABILITY: probability})


def region(polygon: Polygon, rank: int) -> ReviewRegion:
    return ReviewRegion("r", polygon, str(rank), {MEAN_SCORE: 1.0, REVIEW_RANK: rank})


PREDICTED = Predictions(
    tiles=(),
    contours=(
        contour(box(10, 10, 90, 90), 0.9),
        contour(box(150, 20, 190, 60), 0.6),  # a false alarm
        contour(box(50, 0, 150, 100), 0.7),  # both kinds
    ),
    review=(region(box(110, 80, 130, 100), 10), region(box(60, 150, 80, 170), 2)),
)


def test_the_reviewer_answers_in_order_and_passes_over_what_is_mixed_or_not_drawn() -> None:
    given = answers(PREDICTED, TRUTH, Polygon(), 10)
    assert [(a.region.polygon.bounds, a.path_class) for a in given] == [
        ((110, 80, 130, 100), "Normal"),
        ((150, 20, 190, 60), "Normal"),
        ((10, 10, 90, 90), "Tumor"),
    ]
    assert answers(PREDICTED, TRUTH, Polygon(), 2) == given[:2]
    assert answers(PREDICTED, TRUTH, TRUTH.normal, 10) == given[2:]


def test_answers_come_back_as_accepted_and_rejected() -> None:
    given = answers(PREDICTED, TRUTH, Polygon(), 10)
    features = drawn_features(TRUTH.left(0.5)) + answered_features(given)
    text = json.dumps({"type": "FeatureCollection", "features": features})
    found = label_regions(read_annotations(text), 300, 300, mpp=0.5)
    assert found.accepted.equals(box(10, 10, 90, 90))
    assert found.rejected.area == 400 + 1600
    assert found.tumor_region.area == pytest.approx(5000 + 40 * 80, rel=0.01)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_the_drawn_area_is_annotated_at_first(share: float) -> None:
    first = TRUTH.left(share)
    for part, whole in ((first.tumor, TRUTH.tumor), (first.normal, TRUTH.normal)):
        assert part.area == pytest.approx(share * whole.area, rel=0.02)
        assert whole.covers(part)


def test_a_small_loop_runs_from_annotations_to_figures(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (training_plot, figures):
        monkeypatch.setattr(module, "figure_png", lambda *_, **_options: b"")
    plan = Plan(
        patch_px=32,
        normal=8,
        tumor=4,
        more_normal=4,
        more_tumor=2,
        rounds=1,
        answers=3,
        uncertain=30,
        stride=512,
        test=6,
        val_patches=4,
    )
    rows = list(Loop(shared_data, tmp_path / "project", plan, 0, SilentProgress()).run(go_on=True))
    assert [(row.normal, row.tumor) for row in rows] == [(8, 4), (12, 6)]
    assert [row.accepted + row.rejected for row in rows] == [0, 3]
    assert rows[0].auroc == rows[0].random
    bundles = sorted((tmp_path / "project" / "qprd" / "bundles").iterdir())
    assert len(bundles) == 3
    infos = [json.loads((bundle / "bundle.json").read_text()) for bundle in bundles]
    assert sorted(len(info["training"]["ancestors"]) for info in infos) == [0, 0, 1]


def test_the_table_has_means_over_seeds() -> None:
    rows = [
        Row(seed, 0, 60, 6, accepted=seed, rejected=2, reviewed=4, auroc=0.8 + seed / 10, random=1)
        for seed in (0, 1)
    ]
    assert "| 0 | 60 + 6 | 0 accepted, 2 rejected | 4 | 0.850 (0.800 to 0.900) |" in table(rows)
