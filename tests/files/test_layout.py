from __future__ import annotations

import os
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout, find_project


def test_the_single_project_of_a_folder_is_found(tmp_path: Path) -> None:
    project = tmp_path / "any name.qpproj"
    project.write_text("{}")
    assert find_project(tmp_path) == project.resolve()
    assert find_project(project) == project.resolve()


def test_the_current_folder_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project.qpproj").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_project(None) == (tmp_path / "project.qpproj").resolve()


def test_hidden_files_beside_a_project_are_passed_over(tmp_path: Path) -> None:
    for name in ("project.qpproj", "._project.qpproj"):
        (tmp_path / name).write_text("{}")
    assert find_project(tmp_path).name == "project.qpproj"


def test_two_projects_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("a.qpproj", "b.qpproj"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(QprdError, match=r"a\.qpproj, b\.qpproj"):
        find_project(tmp_path)


@pytest.mark.parametrize("place", ["", "none", "slide.svs"])
def test_what_is_no_project_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "slide.svs").write_text("")
    with pytest.raises(QprdError) as caught:
        find_project(tmp_path / place)
    assert caught.value.fix


def test_a_folder_that_cannot_be_written_is_found_out_early(tmp_path: Path) -> None:
    (tmp_path / "qprd").write_text("a file where the folder should be")
    with pytest.raises(QprdError, match="cannot be written"):
        ProjectLayout(tmp_path / "project.qpproj").require_writable()


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    layout = ProjectLayout(tmp_path / "project.qpproj")
    layout.require_writable()
    layout.require_writable()
    assert os.listdir(layout.root) == []  # noqa: PTH208
