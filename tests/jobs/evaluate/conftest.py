"""A small project, trained on and predicted, to be evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from qprd.jobs.evaluate import page as evaluation_page
from tests.helpers.drawn_project import (
    copied,
    predict,
)


@pytest.fixture(scope="session")
def _predicted(_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copied(_trained, tmp_path_factory.mktemp("predicted") / "project")
    predict(project, stride=32)
    return project


@pytest.fixture
def predicted_project(_predicted: Path, tmp_path: Path) -> Path:
    """Trained on the first slide, validated on the second, all three predicted."""
    return copied(_predicted, tmp_path / "predicted")


@pytest.fixture(autouse=True)
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(evaluation_page, "figure_png", lambda *_, **_options: b"\x89PNG")
