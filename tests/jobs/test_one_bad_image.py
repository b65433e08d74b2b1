"""One image that cannot be read: it alone is left out, and named, by each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qprd
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.doctor.checks import Status
from qprd.jobs.predict.job import predict_project
from qprd.qupath.exchange import ExchangeProject
from qprd.scoring import by_field
from qprd.slides import remarks
from qprd.slides.slide import Slide
from tests.helpers.acts_after import ActsAfter
from tests.helpers.damaged_slide import change_slide_of, cut_off, overwrite_tiles
from tests.helpers.drawn_project import (
    NAMES,
    edit,
    outlines,
    predict,
    prediction,
    train,
)
from tests.helpers.evaluated import evaluate

FIRST, SECOND, THIRD = NAMES
#: What a write that was broken off leaves.
MALFORMED = '{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Pol'


def annotation_file(project: Path, entry_id: int) -> Path:
    return ProjectLayout(project).annotations / f"{entry_id}.geojson"


def spoil(project: Path, entry_id: int) -> None:
    annotation_file(project, entry_id).write_text(MALFORMED)


def draw_on(project: Path, entry_id: int, split: str | None = None) -> None:
    annotation_file(project, entry_id).write_text(json.dumps(outlines()))

    def change(root):  # type: ignore[no-untyped-def]
        metadata = root["images"][entry_id - 1]["metadata"]
        metadata.pop("split", None)
        if split is not None:
            metadata["split"] = split

    edit(project, change)


def about(name: str, lines: object) -> list[str]:
    assert isinstance(lines, tuple)
    return [line for line in lines if line.startswith(name)]


def test_annotations_that_cannot_be_read_stop_only_their_image_in_a_training(
    project: Path,
) -> None:
    whole = train(project)
    spoil(project, 3)
    summary = train(project)
    assert summary.slides == whole.slides
    (note,) = about(THIRD, summary.notes)
    assert "not valid JSON" in note
    assert "Restore the file" in note


@pytest.fixture
def _small_overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overviews that are not read from level 0, as those of large slides."""
    monkeypatch.setattr(remarks, "_OVERVIEW_PX", 128)


@pytest.mark.usefixtures("_small_overviews")
@pytest.mark.parametrize("bad", [1, 2])
def test_a_slide_whose_pixels_are_damaged_stops_only_itself_in_a_training(
    project: Path, tmp_path: Path, bad: int
) -> None:
    draw_on(project, 3, split="train" if bad == 1 else "val")
    change_slide_of(project, bad, tmp_path, overwrite_tiles)
    summary = train(project)
    assert summary.slides["train"] == [THIRD if bad == 1 else FIRST]
    assert summary.slides["val"] == [SECOND if bad == 1 else THIRD]
    (note,) = about(NAMES[bad - 1], summary.notes)
    assert "may be damaged" in note
    assert "Copy it again" in note
    assert NAMES[bad - 1] not in (summary.bundle / "patches.csv").read_text()


@pytest.mark.usefixtures("_small_overviews")
def test_patches_of_a_damaged_slide_are_left_out_of_a_given_table(
    project: Path, tmp_path: Path
) -> None:
    draw_on(project, 3, split="train")
    table = train(project, normal=30).bundle / "patches.csv"
    change_slide_of(project, 3, tmp_path, overwrite_tiles)
    summary = train(project, patches=table)
    assert summary.slides["train"] == [FIRST]
    assert 0 < summary.patches["train"]["normal"] < 30


def test_a_validation_slide_that_is_damaged_beside_its_patches_is_left_out_of_the_validation(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_on(project, 3, split="val")
    scored: list[str] = []

    def fields(model: object, slide: Slide, *rest: Any, **options: Any) -> Any:
        scored.append(slide.path.name)
        if slide.path.name == SECOND:
            raise QprdError("The slide cannot be read.", fix="Copy it again.")
        return score_windows(model, slide, *rest, **options)  # type: ignore[arg-type]

    score_windows = by_field.score_windows
    monkeypatch.setattr(by_field, "score_windows", fields)
    summary = train(project)
    assert sorted(scored) == [SECOND, THIRD]
    assert summary.validation.scoring == "fields"
    assert summary.validation.threshold is not None
    (note,) = about(SECOND, summary.notes)
    assert "not validated on: The slide cannot be read" in note


@pytest.mark.usefixtures("_small_overviews")
def test_without_the_only_slide_that_may_train_there_is_no_training_and_the_cause_is_told(
    project: Path, tmp_path: Path
) -> None:
    change_slide_of(project, 1, tmp_path, overwrite_tiles)
    with pytest.raises(QprdError, match="no slide for training") as caught:
        train(project)
    assert f"{FIRST}: The slide cannot be read" in caught.value.problem


def test_a_split_that_loses_its_only_slide_is_filled_anew_and_that_is_said(
    project: Path,
) -> None:
    draw_on(project, 3)
    spoil(project, 2)
    summary = train(project)
    assert summary.slides == {"train": [FIRST], "val": [THIRD], "test": []}
    assert any(f"without {SECOND} (val)" in note and THIRD in note for note in summary.notes)


@pytest.fixture
def predicted(trained_project: Path) -> Path:
    predict(trained_project)
    return trained_project


def test_annotations_that_cannot_be_read_stop_only_their_image_in_an_evaluation(
    predicted: Path,
) -> None:
    whole = evaluate(predicted, split="all")
    draw_on(predicted, 3)
    spoil(predicted, 3)
    summary = evaluate(predicted, split="all")
    assert [slide.report for slide in summary.slides] == [slide.report for slide in whole.slides]
    (problem,) = about(THIRD, summary.problems)
    assert "not valid JSON" in problem
    assert summary.failed == 1


def test_validation_slides_do_not_stand_in_for_a_test_slide_that_cannot_be_read(
    predicted: Path,
) -> None:
    draw_on(predicted, 3, split="test")
    spoil(predicted, 3)
    with pytest.raises(QprdError, match="None of the test slides") as caught:
        evaluate(predicted)
    assert THIRD in caught.value.problem


def test_annotations_that_cannot_be_read_cost_a_prediction_only_their_regions_to_review(
    trained_project: Path,
) -> None:
    spoil(trained_project, 3)
    summary = predict(trained_project, uncertain=5, uncertain_on="all", write_back=True)
    assert [slide.image for slide in summary.slides] == list(NAMES)
    (problem,) = about(THIRD, summary.problems)
    assert "regions to review" in problem
    assert {region.image for region in summary.review} == {FIRST, SECOND}
    assert summary.write_back is not None
    assert len(summary.write_back.written) == 3
    assert summary.failed == 1


def test_a_slide_that_vanishes_after_it_was_scored_keeps_its_results(
    trained_project: Path, tmp_path: Path
) -> None:
    change_slide_of(trained_project, 2, tmp_path, lambda copy: None)
    vanishes = ActsAfter(1, (tmp_path / SECOND).unlink, "uncertain regions")
    with ExchangeProject(trained_project) as opened:
        summary = predict_project(
            opened, prediction(uncertain=5, uncertain_on="all"), progress=vanishes
        )
    assert len(summary.slides) == 3
    (problem,) = about(SECOND, summary.problems)
    assert "regions to review" in problem
    assert SECOND not in {region.image for region in summary.review}
    assert summary.index.is_file()


@pytest.mark.usefixtures("_small_overviews")
@pytest.mark.parametrize("how", ["overwritten", "cut off"])
def test_doctor_finds_a_damaged_slide(project: Path, tmp_path: Path, how: str) -> None:
    change_slide_of(project, 1, tmp_path, overwrite_tiles if how == "overwritten" else cut_off)
    found = qprd.doctor(project, backend="exchange")
    (finding,) = (check for check in found.checks if check.subject == FIRST)
    assert finding.status is Status.WARN
    assert ("may be damaged" if how == "overwritten" else "cut off") in finding.finding
    assert "Copy it again" in str(finding.fix)
    (slides,) = (check for check in found.checks if check.subject == "slides")
    assert slides.finding.startswith("2 of 3 can be read")


def test_doctor_names_what_cannot_be_read_and_what_is_left_out(project: Path) -> None:
    spoil(project, 3)
    drawn = outlines()
    drawn["features"].append(  # type: ignore[attr-defined]
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]},
            "properties": {"name": "slip of the hand", "classification": {"name": "Tumor"}},
        }
    )
    annotation_file(project, 1).write_text(json.dumps(drawn))
    found = qprd.doctor(project, backend="exchange")
    warnings = {
        check.subject: check.finding for check in found.checks if check.status is Status.WARN
    }
    assert "not valid JSON" in warnings[THIRD]
    assert "slip of the hand" in warnings[FIRST]
    assert "fewer than three corners" in warnings[FIRST]
    assert found.failed == 0
