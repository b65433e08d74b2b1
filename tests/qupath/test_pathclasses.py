"""The project's classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.qupath.geojson import parse_color
from qprd.qupath.pathclasses import argb_from_color, classes_path, read_classes, with_classes
from qprd.qupath.project import PathClass

_BYTE = st.integers(0, 255)
OURS = [PathClass("Tumor: qprd", (255, 140, 0)), PathClass("Review: qprd", (0, 170, 220))]


@given(st.tuples(_BYTE, _BYTE, _BYTE))
def test_colors_make_the_round_trip(color: tuple[int, int, int]) -> None:
    argb = argb_from_color(color)
    assert parse_color(argb) == color
    assert -(2**31) <= argb < 0


def test_the_colors_are_qupaths(colon_project: Path) -> None:
    assert read_classes(colon_project)[:2] == [
        PathClass("Tumor", (200, 0, 0)),
        PathClass("Normal", (0, 200, 0)),
    ]
    assert argb_from_color((200, 0, 0)) == -3670016


def test_classes_are_added_once_and_nothing_else_changes(colon_project: Path) -> None:
    path = classes_path(colon_project)
    before = json.loads(path.read_text(encoding="utf-8"))
    before["pathClasses"][0]["of a later version"] = [1]
    path.write_text(json.dumps(before), encoding="utf-8")
    text = with_classes(colon_project, OURS[:1])
    assert text is not None
    after = json.loads(text)
    assert after["pathClasses"][:-1] == before["pathClasses"]
    assert after["pathClasses"][-1] == {"name": "Tumor: qprd", "color": -29696}
    path.write_text(text, encoding="utf-8")
    both = with_classes(colon_project, OURS)
    assert both is not None
    assert json.loads(both)["pathClasses"] == [
        *after["pathClasses"],
        {"name": "Review: qprd", "color": -16733476},
    ]
    path.write_text(both, encoding="utf-8")
    assert with_classes(colon_project, [PathClass("Tumor: qprd", (1, 2, 3))]) is None
    assert with_classes(colon_project, []) is None
    without = with_classes(colon_project, [], ["Tumor: qprd", "Review: qprd", "not listed"])
    assert without is not None
    assert json.loads(without)["pathClasses"] == before["pathClasses"]


@pytest.mark.parametrize("text", [None, '{"pathClasses": []}'])
def test_a_project_without_classes_keeps_qupaths_default_ones(
    tmp_path: Path, text: str | None
) -> None:
    project = tmp_path / "project.qpproj"
    if text is not None:
        classes_path(project).parent.mkdir()
        classes_path(project).write_text(text)
    assert read_classes(project) == []
    assert with_classes(project, OURS) is None


def test_half_a_surrogate_pair_in_a_name_is_replaced(tmp_path: Path) -> None:
    path = classes_path(tmp_path / "project.qpproj")
    path.parent.mkdir()
    path.write_text(r'{"pathClasses": [{"name": "a\ud83d"}]}')
    assert read_classes(tmp_path / "project.qpproj") == [PathClass("a?")]


@pytest.mark.parametrize("text", ["[]", '{"pathClasses": 3}', "{", ""])
def test_a_malformed_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = classes_path(tmp_path / "project.qpproj")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(QprdError):
        read_classes(tmp_path / "project.qpproj")
