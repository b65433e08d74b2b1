"""The slides of an evaluation: what the model has seen is no test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.drawn_project import (
    HEIGHT,
    NAMES,
    NORMAL,
    TUMOR,
    WIDTH,
    add_slide,
    annotate,
    drawn,
    edit,
    outlines,
    snapshot,
)
from tests.helpers.evaluated import evaluate, only_bundle

FIRST, SECOND, THIRD = NAMES


def test_training_slides_enter_no_split_but_all(predicted_project: Path) -> None:
    annotate(predicted_project, 3, outlines())
    assert [s.entry.name for s in evaluate(predicted_project).slides] == [THIRD]
    assert [s.entry.name for s in evaluate(predicted_project, split="test").slides] == [THIRD]
    every = evaluate(predicted_project, split="all")
    assert [s.entry.name for s in every.slides] == list(NAMES)
    assert [s.report.used_for for s in every.slides] == ["train", "val", "nothing"]
    assert any("was trained on these" in note and FIRST in note for note in every.notes)


def test_a_training_slide_called_test_stays_one(predicted_project: Path) -> None:
    root = json.loads(predicted_project.read_text())
    root["images"][0]["metadata"]["split"] = "test"
    predicted_project.write_text(json.dumps(root))
    with pytest.raises(QprdError, match="no annotated test slides") as caught:
        evaluate(predicted_project, split="test")
    assert f"train ({FIRST})" in caught.value.problem


def rename(project: Path, **names: str) -> None:
    """Give images of these ids other names, as a person does in QuPath."""

    def change(root: Any) -> None:
        for image in root["images"]:
            image["imageName"] = names.get(f"id{image['entryID']}", image["imageName"])

    edit(project, change)


def test_a_training_slide_stays_one_under_another_name(predicted_project: Path) -> None:
    annotate(predicted_project, 3, outlines())
    # The slide that was not used gets the name of the one that was trained on.
    rename(predicted_project, id1="renamed.tif", id3=FIRST)
    every = evaluate(predicted_project, split="all")
    used = {slide.report.image: slide.report.used_for for slide in every.slides}
    assert used == {"renamed.tif": "train", SECOND: "val", FIRST: "nothing"}
    assert [s.entry.id for s in evaluate(predicted_project, split="test").slides] == ["3"]


def test_a_copy_of_a_training_slide_is_no_test_slide(
    predicted_project: Path, tmp_path: Path
) -> None:
    with ExchangeProject(predicted_project) as opened:
        first = opened.entries()[0].source.path
    assert first is not None
    shutil.copyfile(first, tmp_path / "copy.tif")
    add_slide(predicted_project, tmp_path / "copy.tif", WIDTH, HEIGHT)
    annotate(predicted_project, 4, outlines())
    with pytest.raises(QprdError, match="no annotated test slides") as caught:
        evaluate(predicted_project, split="test")
    assert f"train ({FIRST}, copy.tif)" in caught.value.problem


def test_another_part_of_a_training_file_can_be_tested_and_that_is_said(
    predicted_project: Path,
) -> None:
    info_file = only_bundle(predicted_project) / "bundle.json"
    document = json.loads(info_file.read_text())
    document["training"]["slides"][0]["area"] = [WIDTH, 0, WIDTH, HEIGHT]
    info_file.write_text(json.dumps(document))
    edit(predicted_project, lambda root: root["images"][0].update(metadata={"split": "test"}))
    summary = evaluate(predicted_project, split="test")
    assert [slide.report.used_for for slide in summary.slides] == ["nothing"]
    assert any("another part of the same file" in note and FIRST in note for note in summary.notes)


def test_a_bundle_that_knows_names_alone_goes_by_them_and_says_so(predicted_project: Path) -> None:
    info_file = only_bundle(predicted_project) / "bundle.json"
    document = json.loads(info_file.read_text())
    document["format"] = 4
    del document["number"]
    for key in ("slides", "validation_slides"):
        document["training"][key] = [slide["name"] for slide in document["training"][key]]
    info_file.write_text(json.dumps(document))
    every = evaluate(predicted_project, split="all")
    assert [slide.report.used_for for slide in every.slides] == ["train", "val"]
    assert any("by their names alone" in note for note in every.notes)


def test_scrambled_test_labels_change_the_evaluation_and_nothing_else(
    predicted_project: Path,
) -> None:
    """That they do not change the bundle either is tested with the training."""
    annotate(predicted_project, 3, outlines())
    before = evaluate(predicted_project, split="test")
    files = snapshot(predicted_project.parent)
    annotate(predicted_project, 3, drawn(("Tumor", NORMAL), ("Normal", TUMOR)))
    after = evaluate(predicted_project, split="test")
    area = before.patch.auroc
    assert area is not None
    assert after.patch.auroc == pytest.approx(1 - area)
    assert after.threshold == before.threshold
    now = snapshot(predicted_project.parent)
    changed = {Path(path).name for path in files if files[path] != now[path]}
    assert changed <= {"3.geojson", "evaluation.html", "evaluation.json", "index.html"}
