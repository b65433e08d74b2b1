"""Judgments made outside QuPath: stored line by line, and counted like those made in it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapely.affinity import translate
from shapely.geometry import Polygon, box

from qprd.errors import QprdError
from qprd.predictions import MEAN_SCORE, PredictedAnnotation, PredictedContour, object_id
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.project import Annotation, PathClass
from qprd.qupath.reviews import (
    Verdict,
    add_judgment,
    read_judgments,
    review_file,
    with_judgments,
)
from qprd.qupath.scripts import script_folder
from qprd.sampling.regions import label_regions
from tests.helpers.drawn_project import HEIGHT, MPP, WIDTH, copied, edit, train
from tests.helpers.script_session import run
from tests.helpers.small_project import predictions

ACCEPTED, REJECTED = box(400, 400, 464, 464), box(100, 500, 164, 564)
CLASSES = {"accepted": PathClass("Tumor"), "rejected": PathClass("Normal")}


@pytest.fixture
def project(_drawn: Path, tmp_path: Path) -> Path:
    """The project file of the drawn slides."""
    return copied(_drawn, tmp_path / "project")


def contour(polygon: Polygon, index: int = 0) -> PredictedContour:
    number = object_id("b", "1", "contour", index)
    return PredictedContour(number, polygon, f"qprd {index + 1}", {MEAN_SCORE: 1.0})


def judge(project: Path, region: PredictedAnnotation, verdict: Verdict, note: str = "") -> None:
    with ExchangeProject(project) as opened:
        path_class = CLASSES.get(verdict, PathClass("Tumor: qprd"))
        add_judgment(
            project,
            opened.entries()[0],
            region,
            verdict,
            path_class=path_class,
            name="Ana",
            note=note,
        )


def annotations_of(project: Path) -> list[Annotation]:
    with ExchangeProject(project) as opened:
        return list(opened.annotations(opened.entries()[0]))


def judgments(project: Path) -> list[Any]:
    with ExchangeProject(project) as opened:
        return read_judgments(project, opened.entries()[0])


def test_each_judgment_is_a_line_and_the_last_one_of_a_region_counts(project: Path) -> None:
    first, second = contour(ACCEPTED), contour(REJECTED, 1)
    judge(project, first, "rejected")
    judge(project, second, "rejected", note='"quoted"\nand <b>more</b>')
    judge(project, first, "accepted")
    assert len(review_file(project, "1").read_text().splitlines()) == 3
    found = {one.annotation.id: one for one in judgments(project)}
    assert found[first.id].verdict == "accepted"
    assert found[second.id].note == '"quoted"\nand <b>more</b>'
    assert found[second.id].name == "Ana"
    judge(project, second, "none")
    assert [one.id for one in annotations_of(project) if one.predicted] == [first.id]


def test_judgments_count_in_a_training_as_those_made_in_qupath(project: Path) -> None:
    judge(project, contour(ACCEPTED), "accepted")
    judge(project, contour(REJECTED, 1), "rejected")
    review = train(project).origin.review
    assert (review.accepted, review.rejected) == (1, 1)
    assert min(review.tumor_patches, review.normal_patches) > 0
    regions = label_regions(annotations_of(project), WIDTH, HEIGHT, mpp=MPP)
    assert regions.accepted.equals(ACCEPTED)
    assert regions.rejected.equals(REJECTED)


@pytest.mark.parametrize(
    ("in_qupath", "counts"),
    [("Normal", ["Normal"]), ("Tumor", ["Tumor"]), ("Tumor: qprd", ["Tumor"])],
)
def test_a_class_given_in_qupath_outweighs_a_judgment(
    project: Path, in_qupath: str, counts: list[str]
) -> None:
    region = contour(ACCEPTED)
    judge(project, region, "accepted")
    drawn = Annotation(region.id, ACCEPTED, in_qupath, predicted=True)
    found = with_judgments([drawn], judgments(project))
    assert [one.class_name for one in found] == counts


def test_another_region_of_the_same_id_is_still_to_be_judged(project: Path) -> None:
    region = contour(ACCEPTED)
    judge(project, region, "accepted")
    other = Annotation(region.id, translate(ACCEPTED, 8), "Tumor: qprd", predicted=True)
    found = with_judgments([other], judgments(project))
    assert [one.class_name for one in found] == ["Tumor: qprd", "Tumor"]
    judge(project, replace(region, polygon=translate(ACCEPTED, 8)), "rejected")
    assert {one.verdict for one in judgments(project)} == {"accepted", "rejected"}


def test_part_of_a_line_costs_no_other_judgment(project: Path) -> None:
    judge(project, contour(ACCEPTED), "accepted")
    file = review_file(project, "1")
    whole = file.read_text()
    file.write_text(whole + whole[: len(whole) // 2])
    assert len(judgments(project)) == 1
    judge(project, contour(REJECTED, 1), "rejected")
    assert len(judgments(project)) == 2


@pytest.mark.parametrize(
    "damage", [{"verdict": "perhaps"}, {"feature": {"type": "Feature"}}, {"feature": 1}]
)
def test_a_damaged_line_is_named(project: Path, damage: dict[str, object]) -> None:
    judge(project, contour(ACCEPTED), "accepted")
    file = review_file(project, "1")
    line = json.loads(file.read_text())
    file.write_text(file.read_text() + json.dumps({**line, **damage}) + "\n")
    with pytest.raises(QprdError) as refused:
        annotations_of(project)
    assert refused.value.where == f"{file}, line 2"


def test_judgments_of_another_image_or_frame_are_refused(project: Path) -> None:
    judge(project, contour(ACCEPTED), "accepted")
    file = review_file(project, "1")
    file.rename(review_file(project, "2"))
    with ExchangeProject(project) as opened, pytest.raises(QprdError, match="another image"):
        opened.annotations(opened.entries()[1])
    review_file(project, "2").rename(file)

    def turn(root: Any) -> None:
        builder = root["images"][0]["serverBuilder"]
        root["images"][0]["serverBuilder"] = {
            "builderType": "rotated",
            "rotation": "ROTATE_180",
            "builder": builder,
            "metadata": builder["metadata"],
        }

    edit(project, turn)
    with pytest.raises(QprdError, match="turned or cropped since it was reviewed"):
        annotations_of(project)


def test_judgments_made_at_the_same_time_are_all_kept(project: Path) -> None:
    regions = [contour(translate(ACCEPTED, i), i) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda region: judge(project, region, "accepted"), regions))
    assert {one.annotation.id for one in judgments(project)} == {one.id for one in regions}


def test_links_out_of_the_project_are_refused(project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.touch()
    review_file(project, "1").parent.mkdir()
    with ExchangeProject(project) as opened:
        entry = opened.entries()[0]
        review_file(project, "1").symlink_to(outside)
        with pytest.raises(QprdError, match="outside the project"):
            add_judgment(
                project,
                entry,
                contour(ACCEPTED),
                "accepted",
                path_class=CLASSES["accepted"],
                name="",
            )
    assert outside.read_bytes() == b""


@pytest.mark.qupath
@pytest.mark.slow
def test_judgments_come_into_qupath_once_and_are_qupaths_from_then_on(
    qupath: QuPath, colon_project: Path
) -> None:
    path = colon_project
    with ExchangeProject(path) as opened:
        entry = opened.entries()[0]
        opened.write_predictions(entry, predictions())
        stored = opened.read_predictions(entry)
    (accepted,), (rejected,) = stored.contours, stored.review
    judge(path, accepted, "accepted")
    judge(path, rejected, "rejected")
    script = script_folder() / "import_predictions.groovy"

    def classes_in_qupath() -> list[tuple[str, str | None, bool]]:
        with PaquoProject(path) as opened:
            found = opened.annotations_in_qupath(opened.entries()[0])
        ids = (accepted.id, rejected.id)
        return [(one.id, one.class_name, one.predicted) for one in found if one.id in ids]

    expected = [(accepted.id, "Tumor", True), (rejected.id, "Normal", True)]
    log = run(script, path, "--save")
    assert "2 judgments made in the browser" in log
    assert sorted(classes_in_qupath()) == sorted(expected)
    with PaquoProject(path) as project:
        assert len(project.read_predictions(project.entries()[0]).tiles) == 3

    judge(path, accepted, "rejected")
    log = run(script, path, "--save")
    assert "made in the browser" not in log
    assert sorted(classes_in_qupath()) == sorted(expected)
    with PaquoProject(path) as project:
        found = project.annotations(project.entries()[0])
        assert [one.class_name for one in found if one.id == accepted.id] == ["Tumor"]


@pytest.mark.qupath
@pytest.mark.slow
def test_judgments_come_into_a_project_that_was_written_by_qupath(
    qupath: QuPath, colon_project: Path
) -> None:
    with PaquoProject(colon_project) as opened:
        entry = opened.entries()[0]
        opened.write_predictions(entry, predictions())
        before = opened.read_predictions(entry)
    (accepted,) = before.contours
    judge(colon_project, accepted, "accepted")
    run(script_folder() / "import_predictions.groovy", colon_project, "--save")
    with PaquoProject(colon_project) as opened:
        entry = opened.entries()[0]
        after = opened.read_predictions(entry)
        classes = {one.id: one.class_name for one in opened.annotations_in_qupath(entry)}
    assert classes[accepted.id] == "Tumor"
    assert after == replace(before, contours=(), contour_class=after.contour_class)
