"""A real QuPath with a project whose folder ``qprd`` is a link to another disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.remove import remove
from qprd.jobs.undo import undo
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.scripts import script_folder
from tests.helpers.qupath_work import make_predictions
from tests.helpers.script_session import run

pytestmark = pytest.mark.qupath


@pytest.fixture
def linked(colon_project: Path, shared_data: Path, tmp_path: Path, qupath: QuPath) -> Path:
    """The colon project with its slides, and ``qprd`` on another disk."""
    text = colon_project.read_text()
    slides = (shared_data / "slides").resolve().as_uri()
    colon_project.write_text(text.replace("file:///data/colon/slides", slides))
    (tmp_path / "scratch").mkdir()
    (colon_project.parent / "qprd").symlink_to(tmp_path / "scratch")
    return colon_project


def test_what_is_written_to_qupath_can_be_removed_and_taken_back(
    linked: Path, tmp_path: Path
) -> None:
    data = linked.parent / "data" / "1" / "data.qpdata"
    before = data.read_bytes()
    with PaquoProject(linked) as project:
        entry = project.entries()[0]
        meant = make_predictions("1")
        project.write_predictions(entry, meant)
        assert len(project.read_predictions(entry).tiles) == len(meant.tiles)
        summary = remove(project, progress=SilentProgress())
        assert (summary.failed, list(summary.removed)) == (0, [entry.name])
        assert any((tmp_path / "scratch" / "backups").iterdir())
        undone = undo(project, everything=True, progress=SilentProgress())
    assert undone.failed == 0
    assert data.read_bytes() == before


@pytest.mark.slow
def test_the_scripts_read_and_write_through_it(linked: Path, tmp_path: Path) -> None:
    log = run(script_folder() / "export_annotations.groovy", linked)
    assert (tmp_path / "scratch" / "annotations" / "1.geojson").is_file(), log
    with ExchangeProject(linked) as project:
        first = project.entries()[0]
        assert len(project.annotations(first)) == 3
        project.write_predictions(first, make_predictions("1"))
    log = run(script_folder() / "import_predictions.groovy", linked, "--save")
    assert "50 tiles" in log


@pytest.mark.slow
def test_no_script_writes_through_a_link_out_of_the_project(linked: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    ProjectLayout(linked).annotations.symlink_to(outside)
    log = run(script_folder() / "export_annotations.groovy", linked)
    assert "leads out of the project" in log
    assert list(outside.iterdir()) == []
    with pytest.raises(QprdError, match="outside the project"):
        PaquoProject(linked)
