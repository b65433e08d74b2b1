"""A bundle scores slides in one way, the one that its threshold and probability are for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qprd.bundle.reading import read_bundle_info
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.evaluate.job import evaluate
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import load_score_map
from qprd.results.folder import SLIDE, load_slide_result
from tests.helpers.drawn_project import NAMES, predict, train


@pytest.mark.parametrize("scoring", ["fields", "patches"])
def test_slides_are_scored_as_the_bundle_was_validated(project: Path, scoring: str) -> None:
    summary = train(project, scoring=scoring)
    info = read_bundle_info(summary.bundle)
    assert info.scoring.by == scoring
    assert info.scoring.threshold == summary.validation.threshold
    predicted = predict(project, images=(NAMES[2],))
    assert predicted.threshold == info.scoring.threshold
    assert load_slide_result(ProjectLayout(project).result("3")).scoring == scoring


def test_the_two_ways_of_scoring_give_other_numbers_in_the_same_cells(project: Path) -> None:
    maps, validation = [], []
    for scoring in ("fields", "patches"):
        bundle = train(project, scoring=scoring).bundle
        predict(project, images=(NAMES[2],))
        maps.append(load_score_map(ProjectLayout(project).result("3")).scores)
        validation.append(read_bundle_info(bundle).scoring.validation)
    np.testing.assert_array_equal(np.isnan(maps[0]), np.isnan(maps[1]))
    scored = ~np.isnan(maps[0])
    assert not np.array_equal(maps[0][scored], maps[1][scored])
    assert validation[0] != validation[1]


def test_a_teacher_that_sees_far_is_scored_patch_by_patch_and_this_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.scoring.by_field.sees_far", lambda *_: True)
    summary = train(project)
    assert read_bundle_info(summary.bundle).scoring.by == "patches"
    assert any("patch by patch" in note for note in summary.notes)


def test_validation_patches_that_cannot_be_scored_from_fields_leave_scores_patch_by_patch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise QprdError("The slide is gone.")

    monkeypatch.setattr("qprd.scoring.by_field.score_windows", fail)
    summary = train(project)
    info = read_bundle_info(summary.bundle)
    assert info.scoring.by == "patches"
    assert info.scoring.threshold == summary.validation.threshold
    assert summary.validation.threshold is not None
    assert any("patch by patch" in note for note in summary.notes)


def test_slides_that_were_scored_the_other_way_are_not_evaluated(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:2])
    file = ProjectLayout(trained_project).result("2") / SLIDE
    values = json.loads(file.read_text())
    del values["scoring"]
    file.write_text(json.dumps({**values, "exact": True}))
    with ExchangeProject(trained_project) as opened:
        summary = evaluate(opened, split="all", progress=SilentProgress())
    assert [slide.entry.name for slide in summary.slides] == [NAMES[0]]
    assert any(f"{NAMES[1]}: It was scored by patches" in problem for problem in summary.problems)
