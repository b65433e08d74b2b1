"""Shared fixtures: real data beside the checkout, and a copy of the colon project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
