"""Both ways of scoring have threshold and probability of their own, and are not mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qprd.bundle.bundle import read_bundle_info
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.evaluate.job import evaluate_project
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.folder import load_score_map, load_slide_result
from tests.helpers.drawn_project import NAMES, fitted, predict, train


def bundle_of(project: Path) -> Path:
    (bundle,) = ProjectLayout(project).bundles.iterdir()
    return bundle


def test_each_way_predicts_with_what_was_fitted_to_it(trained_project: Path) -> None:
    bundle, folder = bundle_of(trained_project), ProjectLayout(trained_project).result("3")
    scores = {}
    for exact, info in ((True, read_bundle_info(bundle)), (False, fitted(bundle))):
        summary = predict(trained_project, images=(NAMES[2],), exact=exact)
        assert summary.threshold == info.threshold
        assert load_slide_result(folder).exact == exact
        assert not any("patch by patch" in note for note in summary.notes)
        scores[exact] = load_score_map(folder).scores
    np.testing.assert_array_equal(np.isnan(scores[True]), np.isnan(scores[False]))
    wanted = ~np.isnan(scores[True])
    assert not np.array_equal(scores[True][wanted], scores[False][wanted])
    assert read_bundle_info(bundle).validation != fitted(bundle).validation


def test_a_training_with_exact_has_no_other_scores(project: Path) -> None:
    summary = train(project, exact=True)
    info = read_bundle_info(summary.bundle)
    assert info.dense is None
    assert summary.dense_auroc is None
    assert summary.threshold == info.threshold
    assert any("patch by patch" in note for note in predict(project, images=(NAMES[2],)).notes)


def test_a_teacher_that_sees_far_is_scored_patch_by_patch_and_this_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.scoring.by_field.sees_far", lambda *_: True)
    summary = train(project)
    assert read_bundle_info(summary.bundle).dense is None
    assert any("patch by patch" in note for note in summary.notes)


def test_slides_that_were_scored_differently_are_not_evaluated_together(
    trained_project: Path,
) -> None:
    predict(trained_project, images=(NAMES[0],))
    predict(trained_project, images=(NAMES[1],), exact=True)
    with ExchangeProject(trained_project) as opened:
        summary = evaluate_project(opened, split="all", progress=SilentProgress())
    assert [slide.entry.name for slide in summary.slides] == [NAMES[0]]
    assert any("--exact" in problem for problem in summary.problems)
    assert summary.threshold == fitted(bundle_of(trained_project)).threshold


def test_a_slide_that_cannot_be_scored_from_fields_leaves_the_other_way(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise QprdError("The slide is gone.")

    monkeypatch.setattr("qprd.scoring.scorer.SlideScorer.patch_scores", gone)
    summary = train(project)
    info = read_bundle_info(summary.bundle)
    assert info.dense is None
    assert info.threshold == summary.threshold
    assert summary.threshold is not None
    assert any("is gone" in note for note in summary.notes)
