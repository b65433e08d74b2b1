"""Annotations of several images, of which one cannot be read, through either backend."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qprd.files.layout import ProjectLayout
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.image_annotations import read_image_annotations
from qprd.qupath.java import QuPath
from qprd.qupath.project import Annotation, Entry, Project


@pytest.fixture
def exchange(colon_project: Path, shared_data: Path) -> Project:
    folder = ProjectLayout(colon_project).annotations
    folder.mkdir(parents=True)
    for number in (1, 2):
        exported = shared_data / "qupath" / "colon" / "annotations"
        shutil.copyfile(exported / f"colon_{number}.tif.geojson", folder / f"{number}.geojson")
    return ExchangeProject(colon_project)


@pytest.fixture
def paquo(colon_project: Path, qupath: QuPath) -> Project:
    from qprd.qupath.paquo_backend import PaquoProject

    return PaquoProject(colon_project)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def cut_export(project: Path) -> None:
    cut(ProjectLayout(project).annotations / "2.geojson")


def cut_data(project: Path) -> None:
    cut(project.parent / "data" / "2" / "data.qpdata")


@pytest.mark.parametrize(
    ("backend", "damage"),
    [("exchange", cut_export), pytest.param("paquo", cut_data, marks=pytest.mark.qupath)],
)
def test_an_image_that_cannot_be_read_leaves_the_others(
    request: pytest.FixtureRequest, backend: str, damage: Callable[[Path], None]
) -> None:
    project: Project = request.getfixturevalue(backend)
    whole = read_image_annotations(project, project.entries())
    assert [len(found) for found in whole.annotations.values()] == [3, 2]
    assert not whole.unreadable
    damage(project.path)
    left = read_image_annotations(project, project.entries())
    assert left.annotations == {"1": whole.annotations["1"]}
    assert left.unreadable.keys() == {"2"}
    assert sorted(left.unreadable["2"].classes or ()) == ["Normal", "Tumor"]
    assert left.unreadable["2"].error.fix


def test_what_qupath_did_not_record_is_not_known(exchange: Project) -> None:
    cut_export(exchange.path)
    (exchange.path.parent / "data" / "2" / "summary.json").unlink()
    assert read_image_annotations(exchange, exchange.entries()).unreadable["2"].classes is None


def test_annotations_are_read_once(exchange: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = exchange.entries()
    known = {entry.id: exchange.annotations(entry) for entry in (first, second)}
    read: list[str] = []
    annotations = ExchangeProject.annotations

    def noted(project: ExchangeProject, entry: Entry) -> Sequence[Annotation]:
        read.append(entry.id)
        return annotations(project, entry)

    monkeypatch.setattr(ExchangeProject, "annotations", noted)
    found = read_image_annotations(exchange, exchange.entries())
    assert dict(found.annotations) == known
    assert read == [first.id, second.id]
