"""What qprd wrote, out of a project again."""

from __future__ import annotations

from pathlib import Path

import pytest

from qprd.given_settings import predict_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.remove import remove
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.opening import open_project
from qprd.results.folder import load_predictions
from tests.helpers.drawn_project import NAMES, PREDICTION, predict, result, snapshot, stored


def test_all_of_ours_is_taken_out_again_and_nothing_else(trained_project: Path) -> None:
    before = snapshot(trained_project.parent)
    predict(trained_project, threshold=0.01, images=NAMES[:2], write_back=True)
    with ExchangeProject(trained_project) as opened:
        summary = remove(opened, progress=SilentProgress())
        again = remove(opened, progress=SilentProgress())
    written = load_predictions(result(trained_project, 1))
    assert set(summary.removed) == set(NAMES[:2])
    assert summary.removed[NAMES[0]] == len(written.tiles) + len(written.contours)
    left = stored(trained_project, 1)
    assert (left.tiles, left.contours) == ((), ())
    assert (again.removed, again.problems) == ({}, ())
    assert "remove_qprd_objects.groovy" in summary.lines()[-1]
    after = snapshot(trained_project.parent)
    assert {name: after[name] for name in before} == before


@pytest.mark.qupath
def test_qupaths_own_data_are_free_of_ours_after_a_removal(trained_project: Path) -> None:
    opened, _ = open_project(trained_project, backend="paquo")
    with opened:
        entry = opened.entries()[0]
        predict_project(
            opened,
            predict_config({**PREDICTION, "threshold": 0.01, "images": [entry.name]}),
            write_back=True,
            progress=SilentProgress(),
        )
        assert opened.read_predictions(entry).tiles
        summary = remove(opened, progress=SilentProgress())
        left = opened.read_predictions(entry)
    assert summary.failed == 0
    assert (left.tiles, left.contours, left.metadata) == ((), (), {})
