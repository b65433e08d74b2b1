"""Writes through a real QuPath that fail or are broken off leave every byte."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.atomic import is_temporary_name
from qprd.qupath import comparison, paquo_backend
from qprd.qupath.entrydata import EntryData
from qprd.qupath.paquo_backend import PaquoProject
from tests.helpers.qupath_work import (
    file_bytes,
    make_predictions,
    write,
)

pytestmark = [pytest.mark.qupath, pytest.mark.usefixtures("qupath")]


def _fail(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (EntryData, "replace_own"),
        (EntryData, "write"),
        (EntryData, "summary"),
        (paquo_backend, "compare"),
        (paquo_backend, "stage_own_metadata"),
        (paquo_backend, "with_classes"),
        (comparison, "same_outline"),
    ],
)
def test_an_interruption_anywhere_leaves_every_byte(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    write(worked_project, 1, make_predictions("2"))
    before = file_bytes(worked_project)
    monkeypatch.setattr(owner, name, _fail)
    with pytest.raises(KeyboardInterrupt), PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2", bundle="other"))
    assert file_bytes(worked_project) == before


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_replacement_that_fails_takes_the_others_back(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    before = file_bytes(worked_project)
    original = Path.replace
    staged_moves = []

    def failing(self: Path, target: Path) -> Path:
        if is_temporary_name(self) and target.name != "journal.json":
            staged_moves.append(target)
            if len(staged_moves) == fails_at:
                raise PermissionError(13, "Permission denied")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match="as they were"):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert file_bytes(worked_project) == before


def _lose_a_cell(data: EntryData) -> None:
    hierarchy = data._file.hierarchy
    hierarchy.removeObject(next(iter(hierarchy.getCellObjects())), True)


def _rename_an_annotation(data: EntryData) -> None:
    next(iter(data._file.hierarchy.getAnnotationObjects())).setName("another name")


def _change_a_measurement(data: EntryData) -> None:
    next(iter(data._file.hierarchy.getCellObjects())).getMeasurementList().put("Cell: Area", 7.0)


def _unlock(data: EntryData) -> None:
    for item in data._file.hierarchy.getAnnotationObjects():
        item.setLocked(False)


def _lose_a_tile(data: EntryData) -> None:
    hierarchy = data._file.hierarchy
    hierarchy.removeObject(next(iter(data._own()[0])), True)


def _move_a_contour(data: EntryData) -> None:
    for item in data._own()[1]:
        item.setROI(item.getROI().translate(0.5, 0.0))


@pytest.mark.parametrize(
    "spoil",
    [
        _lose_a_cell,
        _rename_an_annotation,
        _change_a_measurement,
        _unlock,
        _lose_a_tile,
        _move_a_contour,
    ],
)
def test_any_difference_after_saving_is_noticed(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[EntryData], None]
) -> None:
    before = file_bytes(worked_project)
    original = EntryData.write

    def spoiled(self: EntryData, path: Path) -> None:
        spoil(self)
        original(self, path)

    monkeypatch.setattr(EntryData, "write", spoiled)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match="differs"):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert file_bytes(worked_project) == before


def test_a_full_disk_leaves_every_byte(worked_project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        shutil.copytree(worked_project.parent, small / "project")
        project_path = small / "project" / "project.qpproj"
        before = file_bytes(project_path)
        with PaquoProject(project_path) as project, pytest.raises(QprdError) as raised:
            project.write_predictions(project.entries()[1], make_predictions("2", 20_000))
        assert raised.value.fix == "Free some space and run it again."
        assert file_bytes(project_path) == before
        assert list(small.rglob("*.tmp")) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_leaving_after_an_exception_saves_nothing(worked_project: Path) -> None:
    before = file_bytes(worked_project)
    project = PaquoProject(worked_project)
    project.annotations(project.entries()[1])
    with pytest.raises(RuntimeError), project:
        raise RuntimeError
    assert file_bytes(worked_project) == before
