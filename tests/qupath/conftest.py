"""A real QuPath, and a colon project that a person has worked on in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qprd.qupath.java import QuPath, find_qupath, start_qupath
from tests.helpers.qupath_work import edit_in_qupath, work_like_a_person

_SAID: list[str] = []


def _which_qupath() -> str:
    found = find_qupath()
    if found is None:
        return "QuPath: none found, tests marked 'qupath' are skipped"
    return f"QuPath: {found.problem or found.version} at {found.path}"


def pytest_report_header() -> str:
    _SAID.append(_which_qupath())
    return _SAID[0]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    # The header comes before this file is read, unless the tests of this folder alone are run.
    if not _SAID:
        terminalreporter.write_line(_which_qupath())


@pytest.fixture(scope="session")
def qupath() -> QuPath:
    found = find_qupath()
    if found is None:
        pytest.skip("paquo finds no QuPath (PAQUO_QUPATH_DIR)")
    if found.problem is not None:
        pytest.skip(found.problem)
    return start_qupath()


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
