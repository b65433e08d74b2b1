"""What ``predict --uncertain`` marks, writes and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely.geometry import box

from qprd.bundle.reading import newest_bundle, read_bundle_info
from qprd.errors import QprdError
from qprd.given_settings import predict_config
from qprd.jobs.predict.review_regions import RegionReport, mark_uncertain, require_threshold
from qprd.jobs.predict.summary import PredictSummary
from qprd.predictions import REVIEW_CLASS, REVIEW_RANK, PredictedAnnotation
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.folder import REVIEW, load_predictions
from qprd.sampling.regions import label_regions
from tests.helpers.drawn_project import (
    HEIGHT,
    MPP,
    NAMES,
    NORMAL,
    TUMOR,
    WIDTH,
    copied,
    predict,
    snapshot,
)

#: Twice the patches' edge: a region is one cell.
STRIDE = 64
MARKED = 5


@pytest.fixture(scope="session")
def _marked(
    _trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PredictSummary]:
    project = copied(_trained, tmp_path_factory.mktemp("marked") / "project")
    return project, predict(
        project, uncertain=MARKED, uncertain_on="all", stride=STRIDE, write_back=True
    )


@pytest.fixture
def summary(_marked: tuple[Path, PredictSummary]) -> PredictSummary:
    return _marked[1]


@pytest.fixture
def project(_marked: tuple[Path, PredictSummary], tmp_path: Path) -> Path:
    """Predicted, with regions to review, which are also written back."""
    return copied(_marked[0], tmp_path / "project")


def results(project: Path) -> Path:
    return project.parent / "qprd" / "results"


def mark(project: Path, most: int) -> tuple[RegionReport, ...]:
    """As after a prediction, from the score maps that there are."""
    info = read_bundle_info(newest_bundle(project.parent / "qprd" / "bundles"))
    with ExchangeProject(project) as opened:
        return mark_uncertain(
            opened,
            opened.entries(),
            info,
            info.scoring.threshold or 0.0,
            predict_config({"uncertain": most, "uncertain_on": "all"}),
            progress=SilentProgress(),
        )[0]


def test_regions_are_in_results_and_project_in_the_order_that_is_told(
    project: Path, summary: PredictSummary
) -> None:
    assert [region.rank for region in summary.review] == [1, 2, 3, 4, 5]
    assert f"Marked {MARKED} regions to review" in "\n".join(summary.lines())
    assert summary.write_back is not None
    assert f" and {MARKED} regions to review to 3 images" in summary.write_back.lines()[0]
    by_rank: dict[int, tuple[str, PredictedAnnotation]] = {}
    with ExchangeProject(project) as opened:
        for entry in opened.entries():
            found = load_predictions(results(project) / entry.id).review
            assert opened.read_predictions(entry).review == found
            by_rank |= {int(r.measurements[REVIEW_RANK]): (entry.name, r) for r in found}
    assert sorted(by_rank) == [1, 2, 3, 4, 5]
    for region in summary.review:
        image, stored = by_rank[region.rank]
        assert (image, stored.name) == (region.image, str(region.rank))
        assert stored.polygon.bounds == pytest.approx(
            (region.x, region.y, region.x + region.width, region.y + region.height), abs=0.01
        )
    # Slides take turns.
    assert {image for image, _ in by_rank.values()} == set(NAMES)


def test_what_is_drawn_is_not_asked_about(project: Path) -> None:
    marked = mark(project, 1000)
    assert 0 < len(marked) < 1000
    for region in marked:
        middle = box(region.x, region.y, region.x + region.width, region.y + region.height).centroid
        if region.image != NAMES[2]:
            assert not TUMOR.union(NORMAL).contains(middle)


def test_regions_are_marked_where_the_next_training_learns_from_them(project: Path) -> None:
    info = read_bundle_info(newest_bundle(project.parent / "qprd" / "bundles"))
    with ExchangeProject(project) as opened:
        marked, problems, notes = mark_uncertain(
            opened,
            opened.entries(),
            info,
            info.scoring.threshold or 0.0,
            predict_config({"uncertain": 1000}),
            progress=SilentProgress(),
        )
    # The first is a training slide, the second a validation slide, the third has no split.
    assert {region.image for region in marked} == {NAMES[0], NAMES[2]}
    assert problems == []
    assert notes[0].startswith(f"no regions to review are marked in {NAMES[1]}: ")


def test_the_same_prediction_marks_the_same_regions(project: Path, summary: PredictSummary) -> None:
    before = snapshot(project.parent)
    assert sum(name.endswith(REVIEW) for name in before) == len(NAMES)
    assert mark(project, MARKED) == summary.review
    assert snapshot(project.parent) == before
    assert mark(project, 2) == summary.review[:2]


def test_regions_go_when_they_are_not_asked_for_again(
    project: Path, summary: PredictSummary
) -> None:
    again = predict(project, write_back=True)
    assert again.review == ()
    (note,) = (note for note in again.notes if "taken away" in note)
    assert all(name in note for name in NAMES)
    assert not list(results(project).glob(f"*/{REVIEW}"))
    assert summary.write_back is not None
    assert again.write_back is not None
    assert sum(report.replaced for report in again.write_back.written) == sum(
        report.tiles + report.contours + report.review for report in summary.write_back.written
    )
    assert all(report.review == 0 for report in again.write_back.written)


def test_a_region_is_neither_tumor_nor_normal_until_somebody_says_so(project: Path) -> None:
    with ExchangeProject(project) as opened:
        entry = opened.entries()[2]
        root = json.loads(opened.prediction_file(entry).read_text(encoding="utf-8"))
    exported = project.parent / "qprd" / "annotations" / f"{entry.id}.geojson"
    regions = [f for f in root["features"] if REVIEW_RANK in f["properties"]["measurements"]]

    def areas(path_class: str) -> tuple[float, float, float, float]:
        for feature in regions:
            feature["properties"]["classification"] = {"name": path_class, "color": [1, 2, 3]}
        exported.write_text(json.dumps({"type": "FeatureCollection", "features": regions}))
        with ExchangeProject(project) as opened:
            found = label_regions(opened.annotations(entry), WIDTH, HEIGHT, mpp=MPP)
        return (
            found.tumor_region.area,
            found.accepted.area,
            found.normal_region.area,
            found.rejected.area,
        )

    assert areas(REVIEW_CLASS) == (0, 0, 0, 0)
    tumor, *others = areas("Tumor")
    assert tumor > 0
    assert others == [tumor, 0, 0]
    assert areas("Normal") == (0, 0, tumor, tumor)


def test_without_a_threshold_nothing_is_uncertain() -> None:
    with pytest.raises(QprdError, match="uncertain regions are those close to it"):
        require_threshold(1, None)
    require_threshold(0, None)
    require_threshold(1, 0.5)
