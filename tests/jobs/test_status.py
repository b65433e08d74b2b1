from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import qprd
from qprd.cli import app
from qprd.files.claims import Claims
from qprd.files.layout import ProjectLayout
from qprd.jobs.doctor.checks import Status
from qprd.jobs.status import ProjectStatus
from qprd.predictions import BUNDLE, DATE
from qprd.qupath.exchange import ExchangeProject
from qprd.results.folder import load_slide_result
from tests.helpers.drawn_project import NAMES, edit, predict, result, snapshot


def status_of(project: Path) -> ProjectStatus:
    with ExchangeProject(project) as opened:
        return qprd.status(opened, progress=False)


@pytest.fixture
def predicted(trained_project: Path) -> Path:
    predict(trained_project, stride=None, images=NAMES[:2])
    return trained_project


def test_a_project_without_anything_says_so(project: Path) -> None:
    before = snapshot(project.parent)
    found = status_of(project)
    assert (found.runs, found.bundles, found.work) == ((), (), ())
    assert (found.orphans, found.left) == ((), ())
    assert [one.state for one in found.results] == ["missing"] * 3
    assert found.lines() == ["bundles: 0", "results: 0 fresh, 0 stale, 3 missing, of 3 images"]
    assert snapshot(project.parent) == before


def test_results_are_fresh_until_something_they_depend_on_changes(predicted: Path) -> None:
    found = status_of(predicted)
    assert [one.state for one in found.results] == ["fresh", "fresh", "missing"]
    assert [one.is_newest for one in found.bundles] == [True]
    first = result(predicted, 1) / "slide.json"
    record = json.loads(first.read_text())
    first.write_text(json.dumps(record | {"made_from": record["made_from"] | {"bundle": "0"}}))
    (stale, *_) = status_of(predicted).results
    assert (stale.state, stale.reason) == ("stale", "it was made by another bundle")
    assert (
        f"! results: 1 stale (it was made by another bundle): {NAMES[0]}"
        in status_of(predicted).lines()
    )


def test_other_settings_are_told_and_make_no_result_stale(predicted: Path) -> None:
    predict(predicted, stride=64, images=NAMES[1], assume_mpp=0.5)
    found = status_of(predicted)
    assert [one.state for one in found.results] == ["fresh", "fresh", "missing"]
    assert [one.by_default for one in found.results] == [True, False, True]
    assert f"1 were made with other settings than the defaults: {NAMES[1]}" in "".join(
        found.lines()
    )


def test_who_is_scoring_which_slide_is_told(project: Path) -> None:
    with Claims(project) as claims:
        assert claims.take("2")
        (line,) = [line for line in status_of(project).lines() if "predicting" in line]
        assert f"process {os.getpid()}" in line
        assert f"is at {NAMES[1]} since 20" in line
        file = ProjectLayout(project).claims / "2.0"
        record = json.loads(file.read_text())
        file.write_text(json.dumps(record | {"started": "long ago"}))
        lines = [line for line in status_of(project).lines() if "predicting" in line]
        assert any("is at no slide since" in line for line in lines)
        assert any(f"died while it scored {NAMES[1]}" in line for line in lines)


def test_what_is_written_back_is_told_from_what_waits_and_what_is_not(predicted: Path) -> None:
    with ExchangeProject(predicted) as opened:
        qprd.write_back(opened, images=NAMES[0], progress=False)
    assert [one.written for one in status_of(predicted).results] == ["waiting", "no", "no"]
    stored = load_slide_result(result(predicted, 1))

    def imported(root: Any) -> None:
        root["images"][0]["metadata"] |= {BUNDLE: stored.bundle, DATE: stored.created}

    edit(predicted, imported)
    assert [one.written for one in status_of(predicted).results] == ["yes", "no", "no"]
    # A prediction that is newer than what was written has to be written again.
    edit(predicted, lambda root: root["images"][0]["metadata"].update({DATE: "earlier"}))
    os.utime(predicted.parent / "qprd" / "predictions" / "1.geojson", ns=(0, 0))
    assert status_of(predicted).results[0].written == "no"


def test_what_nobody_needs_any_more_is_told_by_status_and_doctor_alike(predicted: Path) -> None:
    shutil.copytree(result(predicted, 1), result(predicted, 77))
    bundle = next((predicted.parent / "qprd" / "bundles").iterdir())
    shutil.copytree(bundle, bundle.with_name("damaged"))
    (bundle.with_name("damaged") / "bundle.json").write_text("{")
    (predicted.parent / "qprd" / "journal.json").write_text("{")
    found = status_of(predicted)
    assert found.orphans == ("77",)
    assert [one.name for one in found.bundles if one.problem] == ["damaged"]
    told = list(found.checks())
    assert Counter(check.status for check in told)[Status.FAIL] == 1
    examined = qprd.doctor(predicted, backend="exchange", progress=False).checks
    assert set(told) <= set(examined)


def test_the_command_prints_it_and_writes_it_as_json(predicted: Path, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    words = ["status", str(predicted), "--backend", "exchange", "--json", str(file)]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    assert "results: 2 fresh, 0 stale, 1 missing, of 3 images" in outcome.output
    written = json.loads(file.read_text())
    assert written["results"][2] == {
        "image": NAMES[2],
        "entry_id": "3",
        "state": "missing",
        "reason": "",
        "written": "no",
        "by_default": True,
        "slide_score": None,
        "split": None,
        "tumor": None,
        "normal": None,
    }


def test_a_training_that_was_stopped_is_told_with_how_to_go_on(project: Path) -> None:
    run = project.parent / "qprd" / "runs" / "20261130-101010-efficientnet_lite0"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    found = status_of(project)
    assert [(one.name, one.epochs, one.is_running) for one in found.runs] == [(run.name, 2, False)]
    assert f"    qprd train --resume {run.name} goes on with it." in found.lines()
