"""The scripts for QuPath, copied to where the user wants them or QuPath lists them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.jobs.groovy import copy_scripts
from qprd.qupath.scripts import script_folder

NAMES = {path.name for path in script_folder().glob("*.groovy")}


def test_scripts_are_copied_whole_with_a_last_line(tmp_path: Path) -> None:
    copies = copy_scripts(tmp_path / "new" / "a folder \u00e9")
    assert {path.name for path in copies.scripts} == NAMES
    for copy in copies.scripts:
        text = copy.read_text("utf-8")
        shipped = (script_folder() / copy.name).read_text("utf-8")
        if copy.name != "qprd.groovy":
            assert text.startswith(shipped)
        assert re.fullmatch(r"// As qprd wrote it: [0-9a-f]{64}", text.splitlines()[-1])


def test_an_earlier_copy_is_replaced_and_kept_if_a_person_changed_it(tmp_path: Path) -> None:
    first = copy_scripts(tmp_path)
    before = {path.name: path.read_bytes() for path in first.scripts}
    changed = tmp_path / "rethreshold.groovy"
    for number, setting in enumerate(("0.7", "0.8"), start=1):
        own = changed.read_text("utf-8").replace("THRESHOLD = 0.5", f"THRESHOLD = {setting}")
        changed.write_text(own, "utf-8")
        again = copy_scripts(tmp_path)
        assert again.kept == (tmp_path / f"rethreshold.groovy.{number}.bak",)
        assert again.kept[0].read_text("utf-8") == own
        assert f"kept as {again.kept[0]}" in "\n".join(again.lines())
    assert copy_scripts(tmp_path).kept == ()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.groovy")} == before


def test_a_script_of_a_person_with_the_same_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "show_heatmap.groovy").write_text("println 'mine'")
    (kept,) = copy_scripts(tmp_path).kept
    assert kept.read_text() == "println 'mine'"


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(QprdError, match="cannot be written"):
        copy_scripts(tmp_path / "file")


def test_the_window_gets_the_command_of_this_qprd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    constant = "@Field static final List<String> INSTALLED = []"
    (shipped / "qprd.groovy").write_text(f"before\n{constant}\nafter\n")
    monkeypatch.setattr("qprd.jobs.groovy.script_folder", lambda: shipped)
    monkeypatch.setattr(sys, "executable", "C:\\Users\\O'Hara \u00e9\\python.exe")
    (copy,) = copy_scripts(tmp_path / "copies").scripts
    assert copy.read_text("utf-8").splitlines()[1] == (
        r"@Field static final List<String> INSTALLED = "
        r"['C:\\Users\\O\'Hara " + "\u00e9" + r"\\python.exe', '-m', 'qprd']"
    )


def test_scripts_go_into_every_user_folder_of_qupath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "v0.7", tmp_path / "v0.6"]
    monkeypatch.setattr("qprd.jobs.groovy.user_folders", lambda: folders)
    copies = copy_scripts(None)
    assert {path.parent for path in copies.scripts} == {folder / "scripts" for folder in folders}
    assert "Automate > User scripts > qprd" in copies.lines()[-1]


def test_a_default_user_folder_is_taken_where_none_was_chosen_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.jobs.groovy.user_folders", list)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    with pytest.raises(QprdError, match="user folder is not known") as caught:
        copy_scripts(None)
    assert "qprd groovy DIR" in str(caught.value.fix)
    (tmp_path / "QuPath" / "v0.6").mkdir(parents=True)
    copies = copy_scripts(None)
    assert {path.parent for path in copies.scripts} == {tmp_path / "QuPath" / "v0.6" / "scripts"}
    assert "Preferences" in copies.notes[0]
    assert copies.notes[0].endswith(" Then start QuPath again.")
