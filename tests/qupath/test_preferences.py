from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from qprd.qupath import preferences
from qprd.qupath.preferences import from_registry_value, user_folders

#: Names of nodes as the JDK wrote them on Linux.
NODE, VERSION = "_!'k!bw!u!'c!a@\"0!'g!d@\"i!#4!c@\"1!(!!}@\"0!'g=", "_!$!!.g!2"
XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE map SYSTEM "http://java.sun.com/dtd/preferences.dtd">
<map MAP_XML_VERSION="1.0">
  <entry key="userPath" value="{folder}"/>
</map>
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    folder = tmp_path / "a folder \u00e9 \u7a7a"
    folder.mkdir()
    return folder


def test_names_of_nodes_are_those_of_the_jdk() -> None:
    assert preferences._encoded("io.github.qupath") == NODE
    assert preferences._encoded("0.6") == VERSION


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_user_folder_is_that_of_the_preferences(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    assert user_folders() == []
    if system == "linux":
        file = tmp_path / ".java" / ".userPrefs" / NODE / VERSION / "prefs.xml"
        file.parent.mkdir(parents=True)
        file.write_text(XML.format(folder=folder), "utf-8")
    else:
        file = tmp_path / "Library" / "Preferences" / "com.apple.java.util.prefs.plist"
        file.parent.mkdir(parents=True)
        nodes = {"/": {"io.github.qupath/": {"0.6/": {"userPath": str(folder)}}}}
        file.write_bytes(plistlib.dumps(nodes, fmt=plistlib.FMT_BINARY))
    assert user_folders() == [folder]
    file.write_bytes(b"damaged")
    assert user_folders() == []


@pytest.mark.parametrize(
    ("stored", "meant"),
    [
        ("/C:///Users//anna//qupath", r"C:\Users\anna\qupath"),
        ("/D:///M/u00fcller//a b", "D:\\M\u00fcller\\a b"),
        (r"\home\anna", "/home/anna"),
    ],
)
def test_a_folder_in_the_registry_is_read_as_java_wrote_it(stored: str, meant: str) -> None:
    assert from_registry_value(stored) == meant
