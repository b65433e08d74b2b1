"""Replacing several files or none."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.filestate import FileState
from qprd.files.journal import Change, apply
from qprd.files.transaction import FileTransaction


def test_nothing_changes_before_the_commit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "a", "new")
        transaction.stage_text(tmp_path / "deep" / "b", "new")
        assert (tmp_path / "a").read_text() == "old"
        assert not (tmp_path / "deep" / "b").exists()
        transaction.commit()
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "deep" / "b").read_text() == "new"
    assert list(tmp_path.rglob("*.tmp")) == []


def test_without_a_commit_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("links", [True, False])
def test_a_failure_takes_back_what_was_replaced_and_what_was_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def no_links(*_args: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", no_links)
    original = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target.name == "c" and self.read_text() == "new":
            raise PermissionError(13, "Permission denied")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    (tmp_path / "a").write_text("old")
    (tmp_path / "c").write_text("old")
    with FileTransaction(tmp_path) as transaction:
        for name in "abc":
            transaction.stage_text(tmp_path / name, "new")
        with pytest.raises(QprdError, match="as they were"):
            transaction.commit()
    assert (tmp_path / "a").read_text() == (tmp_path / "c").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_the_first_is_replaced_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    original = Path.replace

    def recording(self: Path, target: Path) -> Path:
        moved.append(target.name)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", recording)
    with FileTransaction(tmp_path) as transaction:
        for name in "abc":
            transaction.stage_text(tmp_path / name, name)
        transaction.commit(first=tmp_path / "b")
    assert moved == ["b", "a", "c"]


def test_access_rights_and_links_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "link", "new")
        transaction.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("target", ["file", "dangling", "folder/new", "loop", "../new"])
def test_links_out_of_the_root_are_refused(tmp_path: Path, target: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "project"
    outside.mkdir()
    root.mkdir()
    (outside / "file").write_text("old")
    (root / "file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "new")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    with FileTransaction(root) as transaction, pytest.raises(QprdError):
        transaction.stage_text(root / target, "new")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "project"]


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with FileTransaction(tmp_path / "link") as transaction:
        transaction.stage_text(tmp_path / "link" / "a", "new")
        transaction.commit()
    assert (tmp_path / "real" / "a").read_text() == "new"


def test_half_a_surrogate_pair_is_kept_as_its_json_escape(tmp_path: Path) -> None:
    value = {"a\ud83d": "\u00b5 \U0001f600"}
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "a", json.dumps(value, ensure_ascii=False))
        transaction.commit()
    assert json.loads((tmp_path / "a").read_text(encoding="utf-8")) == value


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with FileTransaction(tmp_path) as transaction, pytest.raises(QprdError):
        transaction.stage_text(tmp_path / "file" / "a", "new")


def test_a_state_changes_with_size_time_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert FileState.of(path) == FileState()
    path.write_text("1")
    first = FileState.of(path)
    assert FileState.of(path) == first
    status = path.stat()
    path.write_text("2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert FileState.of(path) != first
    path.write_text("1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert FileState.of(path) != first


def test_what_was_expected_to_stay_and_did_not_stops_the_commit(tmp_path: Path) -> None:
    for changed in "ab":
        for name in "ab":
            (tmp_path / name).write_text("old")
        with FileTransaction(tmp_path) as transaction:
            transaction.expect(tmp_path / "a")
            transaction.expect(tmp_path / "b")
            transaction.stage_text(tmp_path / "a", "new")
            (tmp_path / changed).write_text("by a person")
            with pytest.raises(QprdError, match="changed while qprd was writing"):
                transaction.commit()
        assert (tmp_path / changed).read_text() == "by a person"
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
        assert "new" not in {path.read_text() for path in tmp_path.iterdir()}


class Meddled(FileTransaction):
    """Somebody writes a file while the journal is written: after the last look at it."""

    def __init__(self, root: Path, path: Path) -> None:
        super().__init__(root)
        self._path = path

    def _begin(self, changes: Sequence[Change]) -> None:
        # As QuPath does it: the earlier file gets another name.
        self._path.rename(self._path.with_suffix(".bkp"))
        self._path.write_text("by a person")


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_file_written_between_the_check_and_its_replacement_is_kept(
    tmp_path: Path, name: str
) -> None:
    for each in "ab":
        (tmp_path / each).write_text("old")
    with Meddled(tmp_path, tmp_path / name) as transaction:
        for each in "ab":
            transaction.stage_text(tmp_path / each, "new")
        with pytest.raises(QprdError, match="changed while qprd was writing"):
            transaction.commit()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a": "old", "b": "old", f"{name}.bkp": "old", name: "by a person"}


def test_what_is_written_into_a_file_that_was_open_is_not_lost_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("old")
    with (tmp_path / "a").open("r+") as theirs:

        def applied(change: Change) -> None:
            apply(change)
            theirs.seek(0)
            theirs.write("by a person")
            theirs.flush()

        monkeypatch.setattr("qprd.files.transaction.apply", applied)
        with FileTransaction(tmp_path) as transaction:
            for name in "ab":
                transaction.stage_text(tmp_path / name, "new")
            with pytest.raises(QprdError, match="changed while qprd was writing"):
                transaction.commit()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a": "by a person", "b": "old"}


def test_what_is_written_over_what_was_just_replaced_stays_and_the_rest_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def applied(change: Change) -> None:
        apply(change)
        if change.target.name == "b":
            change.target.write_text("by a person")

    monkeypatch.setattr("qprd.files.transaction.apply", applied)
    for name in "ab":
        (tmp_path / name).write_text("old")
    with FileTransaction(tmp_path) as transaction:
        for name in "ab":
            transaction.stage_text(tmp_path / name, "new")
        with pytest.raises(QprdError, match="changed while qprd was writing"):
            transaction.commit()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "old",
        "b": "by a person",
    }


def test_what_is_as_it_shall_be_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    before = (tmp_path / "a").stat()
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "a", "same")
        transaction.stage_text(tmp_path / "new" / "b", "new")
        assert transaction.commit() == (tmp_path / "new" / "b",)
    after = (tmp_path / "a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with FileTransaction(tmp_path) as transaction:
        transaction.stage_text(tmp_path / "new" / "b", "new")
    assert list(tmp_path.iterdir()) == []
