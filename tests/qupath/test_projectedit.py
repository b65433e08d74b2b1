"""Changing an entry's metadata in the project file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.predictions import own_metadata
from qprd.qupath.projectedit import server_builder, with_own_metadata


def test_only_our_metadata_of_that_entry_change(colon_project: Path) -> None:
    root = json.loads(colon_project.read_text(encoding="utf-8"))
    root["images"][1]["metadata"] |= {
        "qprd: old": "1",
        "Patient": "\u00c5 \u2620",
        "qprd-review by Anna": "done",
    }
    root["of a later version"] = {"a": 1.0}
    colon_project.write_text(json.dumps(root), encoding="utf-8")
    changed = json.loads(with_own_metadata(colon_project, {"2": {"qprd: new": "2"}}))
    root["images"][1]["metadata"] = {
        "split": "val",
        "Patient": "\u00c5 \u2620",
        "qprd-review by Anna": "done",
        "qprd: new": "2",
    }
    assert changed == root
    assert list(changed) == list(root)


def test_our_metadata_are_those_with_our_prefix() -> None:
    users = {"qprd-review by Anna": "done", "qprd": "x", "qprd:": "y"}
    assert own_metadata({"split": "val", "qprd: a": "1", "Qprd: b": "2", **users}) == {
        "qprd: a": "1"
    }


@pytest.mark.parametrize(
    "text",
    ["{}", '{"images": [{"entryID": 3}]}', '{"images": [null]}'],
)
def test_a_missing_entry_is_an_error(tmp_path: Path, text: str) -> None:
    project = tmp_path / "project.qpproj"
    project.write_text(text)
    with pytest.raises(QprdError, match="no image with id"):
        server_builder(project, "2")
