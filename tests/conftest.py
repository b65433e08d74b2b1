"""Shared fixtures: real data beside the checkout, and a copy of the colon project."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from qprd.qupath.java import find_qupath

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("qupath") is not None and (why := _no_qupath()):
        pytest.skip(why)


@cache
def _no_qupath() -> str | None:
    found = find_qupath()
    return "paquo finds no QuPath (PAQUO_QUPATH_DIR)" if found is None else found.problem


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def colon_project(shared_data: Path, tmp_path: Path) -> Path:
    """A writable copy of the real colon project, its slides beside it as ``../slides``."""
    root = tmp_path / "colon"
    shutil.copytree(shared_data / "qupath" / "colon" / "project", root / "project")
    (root / "slides").symlink_to(shared_data / "slides", target_is_directory=True)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return root / "project" / "project.qpproj"
