"""A predicted project, and its viewer in front of a client that has the token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from qprd.jobs.evaluate.summary import EvaluateSummary
from qprd.qupath.exchange import ExchangeProject
from qprd.view.content import Content
from qprd.view.server import TOKEN_HEADER, make_app
from tests.helpers.drawn_project import (
    NAMES,
    NORMAL,
    TUMOR,
    annotate,
    copied,
    exported,
    predict,
    train,
)
from tests.helpers.evaluated import evaluate

TOKEN = "the token"
ADDRESS = "http://127.0.0.1:8765"
#: Of the prediction; unlike the default, so that it matters where it is taken from.
AREA_UM2 = 500.0

#: Opens a viewer of a project.
View = Callable[[Path], Any]


@pytest.fixture(scope="session")
def _predicted(_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copied(_trained, tmp_path_factory.mktemp("predicted") / "project")
    predict(project, min_area_um2=AREA_UM2, stride=32, threshold=0.0, uncertain=4)
    return project


@pytest.fixture(scope="session")
def _predicted_twice(_predicted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copied(_predicted, tmp_path_factory.mktemp("twice") / "project")
    train(project, seed=1)
    predict(project, min_area_um2=AREA_UM2, stride=32, images=NAMES[:1])
    return project


@pytest.fixture
def predicted_twice(_predicted_twice: Path, tmp_path: Path) -> Path:
    """As `predicted`, and then the first slide by another bundle."""
    return copied(_predicted_twice, tmp_path / "project")


@pytest.fixture
def predicted(_predicted: Path, tmp_path: Path) -> Path:
    """A project with results of its three slides and regions to review."""
    return copied(_predicted, tmp_path / "project")


def evaluate_with_mistakes(project: Path) -> EvaluateSummary:
    """Evaluate all slides; on the second, tumor and normal tissue are drawn the wrong way round."""
    annotate(project, 2, exported([("Normal", TUMOR), ("Tumor", NORMAL)]))
    return evaluate(project, split="all")


@contextmanager
def viewer(project: Path) -> Iterator[TestClient]:
    """A client that has the token of a project's viewer."""
    with ExchangeProject(project) as opened:
        content = Content(opened)
        app = make_app(content, TOKEN, reviewer="Ana")
        yield TestClient(app, base_url=ADDRESS, headers={TOKEN_HEADER: TOKEN})
        content.close()


@pytest.fixture
def client(predicted: Path) -> Iterator[TestClient]:
    with viewer(predicted) as opened:
        yield opened
