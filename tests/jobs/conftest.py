"""A painted project, and the same with a trained bundle, made once and copied for each test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qprd.review import figures, training_plot


@pytest.fixture
def real_pictures() -> None:
    """Asked for by tests that look at pictures."""


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering is most of the time of a job this small, and tested in tests/review."""
    if "real_pictures" not in request.fixturenames:
        for module in (training_plot, figures):
            monkeypatch.setattr(module, "figure_png", lambda *_, **_options: b"\x89PNG")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts small file systems; root may write wherever a folder's mode forbids it."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("no mount command")
    with ExitStack() as stack:

        def make(options: str) -> Path:
            disk = tmp_path / "disk"
            disk.mkdir(exist_ok=True)
            done = subprocess.run(
                [mount, "-t", "tmpfs", "-o", options, "tmpfs", disk],
                capture_output=True,
                check=False,
            )
            if done.returncode:
                reason = done.stderr.decode().strip()
                pytest.skip(f"a small file system cannot be mounted: {reason}")
            # Lazily: an error that a test has caught may hold a file that is open.
            stack.callback(subprocess.check_call, [unmount, "-l", disk])
            return disk

        yield make
