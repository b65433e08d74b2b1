"""A colon project that a person has worked on in a real QuPath."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath
from tests.helpers.qupath_work import edit_in_qupath, work_like_a_person


@pytest.fixture(scope="session")
def _worked_template(
    qupath: QuPath, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("worked")
    shutil.copytree(shared_data / "qupath" / "colon" / "project", root / "project")
    _make_writable(root)
    edit_in_qupath(root / "project" / "project.qpproj", "2", work_like_a_person)
    return root


def _make_writable(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def worked_project(_worked_template: Path, shared_data: Path, tmp_path: Path) -> Iterator[Path]:
    """The colon project with a person's work on entry 2; the recorded slide URIs lead nowhere."""
    root = tmp_path / "worked"
    shutil.copytree(_worked_template, root)
    (root / "slides").symlink_to(shared_data / "slides", target_is_directory=True)
    yield root / "project" / "project.qpproj"
    leftovers = [path for path in root.rglob("*.tmp") if not path.is_symlink()]
    assert leftovers == []


@pytest.fixture
def project(colon_project: Path) -> ExchangeProject:
    """The colon project, read without QuPath."""
    return ExchangeProject(colon_project)


@pytest.fixture
def exported(shared_data: Path) -> Path:
    """The folder of annotations that QuPath exported from the colon project."""
    return shared_data / "qupath" / "colon" / "annotations"
