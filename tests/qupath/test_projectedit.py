"""Changing an entry's metadata in the project file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.transaction import FileTransaction
from qprd.predictions import own_metadata
from qprd.qupath.projectedit import server_builder, stage_own_metadata


def edited(project: Path, metadata: Mapping[str, Mapping[str, str]]) -> str:
    with FileTransaction(project.parent) as transaction:
        return stage_own_metadata(transaction, project, metadata).read_text(encoding="utf-8")


def test_only_our_metadata_of_that_entry_change(colon_project: Path) -> None:
    root = json.loads(colon_project.read_text(encoding="utf-8"))
    root["images"][1]["metadata"] |= {
        "qprd: old": "1",
        "Patient": "\u00c5 \u2620",
        "qprd-review by Anna": "done",
    }
    root["of a later version"] = {"a": 1.0}
    colon_project.write_text(json.dumps(root), encoding="utf-8")
    changed = json.loads(edited(colon_project, {"2": {"qprd: new": "2"}}))
    root["images"][1]["metadata"] = {
        "split": "val",
        "Patient": "\u00c5 \u2620",
        "qprd-review by Anna": "done",
        "qprd: new": "2",
    }
    assert changed == root
    assert list(changed) == list(root)


@pytest.mark.parametrize(
    "of_others", ['"\\ud83d"', "NaN", "1e400", "[" * 400 + "]" * 400, "1" * 40]
)
def test_whatever_others_wrote_stays(tmp_path: Path, of_others: str) -> None:
    project = tmp_path / "project.qpproj"
    project.write_text(f'{{"images": [{{"entryID": 2, "of others": {of_others}}}]}}')
    changed = json.loads(edited(project, {"2": {"qprd: new": "2"}}))
    (image,) = json.loads(project.read_text())["images"]
    assert repr(changed["images"]) == repr([image | {"metadata": {"qprd: new": "2"}}])


def test_a_project_file_that_was_not_stored_as_meant_is_refused(
    colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = FileTransaction.stage_text

    def spoiled(self: FileTransaction, target: Path, text: str) -> Path:
        return stage(self, target, text.replace("Tumor", "tumor").replace("split", "Split"))

    monkeypatch.setattr(FileTransaction, "stage_text", spoiled)
    with pytest.raises(QprdError, match="not stored as meant"):
        edited(colon_project, {"2": {"qprd: new": "2"}})


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
