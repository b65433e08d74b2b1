"""What a real QuPath is not given: what cannot be stored or told apart, or leads elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qprd.cli import app
from qprd.errors import QprdError
from qprd.predictions import (
    SCORE,
    PredictedTile,
    Predictions,
)
from qprd.qupath.entrydata import EntryData
from qprd.qupath.paquo_backend import PaquoProject
from tests.helpers.qupath_work import (
    edit_in_qupath,
    file_bytes,
    make_predictions,
    of_others,
    of_ours,
    project_json,
    snapshot,
    write,
)
from tests.helpers.scored_project import score_project

pytestmark = [pytest.mark.qupath, pytest.mark.usefixtures("qupath")]


@pytest.mark.parametrize(
    "bad",
    [
        replace(make_predictions("2"), contour_class="Tumor"),
        replace(make_predictions("2"), metadata={"split": "train"}),
        replace(make_predictions("2"), metadata={"qprd-review by Anna": "done"}),
        replace(
            make_predictions("2"),
            contours=(replace(make_predictions("2").contours[0], measurements={}),),
        ),
        Predictions((PredictedTile("no uuid", 0, 0, 5, 5, {SCORE: 1.0}),), ()),
        Predictions((PredictedTile(make_predictions("2").tiles[0].id, 0, 0, 5, 5, {}),), ()),
        Predictions(
            (PredictedTile(make_predictions("2").tiles[0].id, 0, 0, 5, 5, {SCORE: np.nan}),), ()
        ),
    ],
    ids=[
        "a person's class",
        "a person's metadata",
        "nearly our metadata",
        "no mean score",
        "no UUID",
        "no score",
        "NaN",
    ],
)
def test_predictions_that_could_not_be_told_apart_or_stored_are_refused(
    worked_project: Path, bad: Predictions
) -> None:
    before = file_bytes(worked_project)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError):
        project.write_predictions(project.entries()[1], bad)
    assert file_bytes(worked_project) == before


def test_an_entry_of_another_project_is_refused(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        stranger = replace(project.entries()[0], id="../../elsewhere")
        with pytest.raises(QprdError, match="no image with id"):
            project.write_predictions(stranger, make_predictions("2"))
        with pytest.raises(QprdError, match="no image with id"):
            project.annotations(stranger)


def _delete_the_annotations(hierarchy: Any) -> None:
    hierarchy.removeObjects(hierarchy.getAnnotationObjects(), True)


def test_what_qupath_saved_since_opening_is_kept(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        edit_in_qupath(worked_project, "2", _delete_the_annotations)
        changed = project_json(worked_project)
        changed["images"][0]["metadata"]["split"] = "test"
        worked_project.write_text(json.dumps(changed), encoding="utf-8")
        before = snapshot(worked_project, "2")
        project.write_predictions(entry, make_predictions("2"))
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    assert len(of_ours(after)) == 54
    changed["images"][1]["metadata"] |= make_predictions("2").metadata
    assert project_json(worked_project) == changed


@pytest.mark.parametrize("what", ["objects", "project file"])
def test_a_save_in_qupath_during_the_writing_is_not_overwritten(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    original = EntryData.write
    before: dict[str, bytes] = {}

    def interrupted_by_a_save(self: EntryData, path: Path) -> None:
        original(self, path)
        if what == "objects":
            edit_in_qupath(worked_project, "2", _delete_the_annotations)
        else:
            worked_project.write_text(worked_project.read_text() + "\n")
        before.update(file_bytes(worked_project))
        del before[str(path.relative_to(worked_project.parent))]

    monkeypatch.setattr(EntryData, "write", interrupted_by_a_save)
    with (
        PaquoProject(worked_project) as project,
        pytest.raises(QprdError, match="changed while qprd was writing") as caught,
    ):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("Close the project in QuPath, then run it again")
    assert file_bytes(worked_project) == before


def test_an_image_turned_since_opening_gets_no_predictions(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        changed = project_json(worked_project)
        changed["images"][1]["serverBuilder"] = {
            "builderType": "rotated",
            "builder": changed["images"][1]["serverBuilder"],
            "rotation": "ROTATE_90",
        }
        worked_project.write_text(json.dumps(changed), encoding="utf-8")
        before = file_bytes(worked_project)
        with pytest.raises(QprdError, match="is turned, cropped or another file"):
            project.write_predictions(entry, make_predictions("2"))
    assert file_bytes(worked_project) == before


@pytest.mark.parametrize("link", ["data/2", "data/2/summary.json", "classifiers/classes.json"])
def test_links_out_of_the_project_are_not_written_through(
    worked_project: Path, tmp_path: Path, link: str
) -> None:
    place = worked_project.parent / link
    outside = tmp_path / "outside"
    outside.mkdir()
    place.rename(outside / place.name)
    place.symlink_to(outside / place.name)
    before = file_bytes(worked_project), file_bytes(outside / "any")
    with (
        pytest.raises(QprdError, match="outside the project; nothing was written"),
        PaquoProject(worked_project) as project,
    ):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert (file_bytes(worked_project), file_bytes(outside / "any")) == before


def test_a_project_without_classes_keeps_qupaths_default_ones(worked_project: Path) -> None:
    classes = worked_project.parent / "classifiers" / "classes.json"
    classes.unlink()
    write(worked_project, 1, make_predictions("2"))
    assert not classes.exists()


def test_an_image_whose_data_are_cut_in_half_is_refused_and_the_other_written(
    worked_project: Path, shared_data: Path
) -> None:
    score_project(worked_project, shared_data)
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    left = data.read_bytes()
    words = ["write-back", str(worked_project), "--backend", "paquo"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 1
    assert "not written: colon_2.tif: QuPath's data of this image are not used" in outcome.output
    assert "to 1 image " in outcome.output
    assert data.read_bytes() == left
    assert of_ours(snapshot(worked_project, "1"))
