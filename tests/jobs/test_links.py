"""Links in a project: none may lead out of it, but the folder ``qprd`` may be on another disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qprd.cli import app
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.drawn_project import NAMES, PREDICTION, TRAINING, flags_of, snapshot

ASAP = """<ASAP_Annotations><Annotations>
<Annotation Name="a" Type="Polygon" PartOfGroup="Tumor"><Coordinates>
<Coordinate Order="0" X="10" Y="10"/><Coordinate Order="1" X="90" Y="10"/>
<Coordinate Order="2" X="90" Y="90"/></Coordinates></Annotation></Annotations>
<AnnotationGroups><Group Name="Tumor" PartOfGroup="None"/></AnnotationGroups></ASAP_Annotations>"""

#: Each command as it is given, in an order in which all can work.
COMMANDS = {
    "doctor": ["doctor"],
    "train": ["train", *flags_of(TRAINING)],
    "predict": ["predict", *flags_of(PREDICTION), "--uncertain", "2", "--write-back"],
    "evaluate": ["evaluate"],
    "remove": ["remove"],
    "undo": ["undo"],
    "write-back": ["write-back"],
    "import-asap": ["import-asap", "--image", NAMES[0]],
    "export": ["export", "--format", "geojson", "--image", NAMES[0]],
    "export of a model": ["export", "--format", "wsinfer"],
}


def run(project: Path, command: str, drawn: Path) -> Result:
    name, *words = COMMANDS[command]
    file = [str(drawn)] if name == "import-asap" else []
    backend = [] if name == "export" else ["--backend", "exchange"]
    return CliRunner().invoke(app, [name, *file, str(project), *backend, *words])


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    file = tmp_path / "drawn.xml"
    file.write_text(ASAP)
    return file


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["qprd/results", "qprd/lock", "qprd/bundles/new", "data"])
def test_a_link_out_of_the_project_is_refused_by_each_command_before_it_begins(
    trained_project: Path, tmp_path: Path, drawn: Path, command: str, place: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (outside / "1" / "theirs").touch()
    link = trained_project.parent / place
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(outside, target_is_directory=True)
    before = snapshot(trained_project.parent), snapshot(outside)
    outcome = run(trained_project, command, drawn)
    assert outcome.exit_code != 0, outcome.output
    assert "a link to a place outside the project" in " ".join(outcome.output.split())
    assert str(link) in outcome.output.replace("\n", "")
    assert (snapshot(trained_project.parent), snapshot(outside)) == before


def test_the_folder_of_qprd_may_be_a_link_for_all_commands(
    project: Path, tmp_path: Path, drawn: Path
) -> None:
    scratch = tmp_path / "scratch"
    shutil.move(project.parent / "qprd", scratch)
    (project.parent / "qprd").symlink_to(scratch, target_is_directory=True)
    others = snapshot(project.parent, without="qprd")
    for command in COMMANDS:
        outcome = run(project, command, drawn)
        assert outcome.exit_code == 0, (command, outcome.output)
    assert snapshot(project.parent, without="qprd") == others
    assert (project.parent / "qprd").is_symlink()
    for name in ("bundles", "results", "predictions", "exports", "annotations"):
        assert any((scratch / name).iterdir()), name
    # Taken back: first the import, then the write-back, whose files go.
    for left in ("predictions", None):
        outcome = run(project, "undo", drawn)
        assert outcome.exit_code == 0, outcome.output
        assert any((scratch / "predictions").glob("*.geojson")) == (left is not None)


@pytest.mark.parametrize("target", ["..", "nowhere", "qprd"])
def test_the_folder_of_qprd_may_not_lead_to_the_project_or_nowhere(
    project: Path, target: str
) -> None:
    shutil.rmtree(project.parent / "qprd")
    (project.parent / "qprd").symlink_to(target)
    with pytest.raises(QprdError, match="The folder qprd is a link"):
        ExchangeProject(project)


def test_a_link_inside_the_project_is_followed(project: Path) -> None:
    layout = ProjectLayout(project)
    moved = project.parent / "drawn elsewhere"
    shutil.move(layout.annotations, moved)
    layout.annotations.symlink_to(moved, target_is_directory=True)
    with ExchangeProject(project) as opened:
        assert opened.annotations(opened.entries()[0])
