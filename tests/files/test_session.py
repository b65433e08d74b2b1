"""Backups that stay bounded, dry runs, and what a crash left cleared up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qprd.errors import QprdError
from qprd.files import backups
from qprd.files.backups import Subject, read_runs, undoable
from qprd.files.filestate import sha256_of
from qprd.files.journal import is_unfinished, recover
from qprd.files.layout import ProjectLayout
from qprd.files.session import WriteAccess
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.crash import Crash
from tests.helpers.small_project import named_project, predictions

SUBJECT = Subject("1", "a.svs")
#: A temporary name that another computer gave.
ABANDONED = ".a.00000000-1-00000000.tmp"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return named_project(tmp_path / "project", "a.svs", "b.svs").path


def write(project: Path, bundle: str, *entries: int) -> Path | None:
    with ExchangeProject(project) as opened, opened.writing("write-back") as session:
        for number in entries or (0,):
            opened.write_predictions(opened.entries()[number], predictions(bundle=bundle))
    return session.backup


def all_files(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}


# --- dry runs


def test_a_dry_run_reports_and_touches_nothing(project: Path) -> None:
    with ExchangeProject(project) as opened:
        entry = opened.entries()[0]
        with opened.writing("write-back", dry_run=True) as session:
            report = opened.write_predictions(entry, predictions())
        assert session.backup is None
        assert (report.tiles, report.contours, report.replaced) == (3, 1, 0)
        assert report.files == (opened.prediction_file(entry),)
    assert [path.name for path in project.parent.iterdir()] == [project.name]
    write(project, "b")
    before = all_files(project)
    with ExchangeProject(project) as opened, opened.writing("write-back", dry_run=True):
        again = opened.write_predictions(opened.entries()[0], predictions())
    assert (again.replaced, again.files) == (5, ())
    assert all_files(project) == before


def test_a_dry_run_says_what_it_cannot_do(project: Path) -> None:
    (project.parent / "qprd").mkdir()
    with ExchangeProject(project) as opened, opened.writing("write-back", dry_run=True):
        (project.parent / "qprd" / "predictions").symlink_to(project.parents[1])
        with pytest.raises(QprdError, match="outside the project"):
            opened.write_predictions(opened.entries()[0], predictions())


# --- backups


def test_a_backup_says_which_files_of_which_images_changed_and_keeps_them(project: Path) -> None:
    write(project, "first", 0)
    file = ProjectLayout(project).predictions / "1.geojson"
    earlier, digest = file.read_bytes(), sha256_of(file)
    folder = write(project, "second", 0, 1)
    (run, first) = read_runs(project)
    assert (run.folder, run.command) == (folder, "write-back")
    assert [step.manifest.subject for step in run.steps] == [SUBJECT, Subject("2", "b.svs")]
    ((changed,), (new,)) = (step.manifest.files for step in run.steps)
    assert changed.path == "qprd/predictions/1.geojson"
    assert (changed.before, changed.after) == (digest, sha256_of(file))
    assert new.before is None
    assert run.steps[0].copy_of(changed.path).read_bytes() == earlier
    assert [file.before for step in first.steps for file in step.manifest.files] == [None]


def test_what_fails_leaves_no_backup(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_files(project)

    def failing(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qprd.files.transaction.apply", failing)
    with pytest.raises(QprdError, match="as they were"):
        write(project, "b")
    assert all_files(project).keys() - before.keys() == {ProjectLayout(project).lock}


def test_what_changes_nothing_leaves_no_backup(project: Path) -> None:
    assert write(project, "b") is not None
    before = all_files(project)
    assert write(project, "b") is None
    assert all_files(project) == before


def test_the_newest_backups_are_kept_the_others_go(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "MAX_RUNS", 3)
    mine = ProjectLayout(project).backups / "of the user"
    mine.mkdir(parents=True)
    folders = [write(project, str(number)) for number in range(5)]
    assert [run.folder for run in read_runs(project)] == folders[:1:-1]
    monkeypatch.setattr(backups, "MAX_BYTES", 1)
    assert [run.folder for run in read_runs(project)] == folders[:1:-1]
    last = write(project, "last")
    assert [run.folder for run in read_runs(project)] == [last]
    assert mine.is_dir()
    assert set(ProjectLayout(project).backups.iterdir()) == {last, mine}


def test_what_is_left_of_a_removed_backup_goes_but_not_through_a_link(
    project: Path, tmp_path: Path
) -> None:
    write(project, "b")
    folder = ProjectLayout(project).backups
    (folder / ABANDONED / "0001").mkdir(parents=True)
    write(project, "b")
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "outside" / ABANDONED).mkdir(parents=True)
    folder.rename(tmp_path / "away")
    folder.symlink_to(tmp_path / "outside")
    with pytest.raises(QprdError, match="outside the project"):
        write(project, "c")
    assert (tmp_path / "outside" / ABANDONED).is_dir()


def test_backups_stay_in_order_when_a_clock_goes_back(project: Path) -> None:
    first = write(project, "1")
    assert first is not None
    later = first.with_name("2099-01-01T00-00-00.000000Z")
    first.rename(later)
    second = write(project, "2")
    assert [run.folder for run in read_runs(project)] == [second, later]


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"path": "../outside", "before": None, "after": None}]},
        {"files": [{"path": "/etc/passwd", "before": None, "after": None}]},
        {"files": "all"},
        {"subject": None},
    ],
)
def test_a_strangers_manifest_leads_nowhere(project: Path, change: dict[str, Any]) -> None:
    folder = write(project, "b")
    assert folder is not None
    manifest = folder / "0001" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(QprdError):
        undoable(project)


# --- what a crash left


@pytest.fixture
def crash(project: Path) -> Crash:
    return Crash(project)


@pytest.mark.parametrize("replaced", ["", "a", "ab"])
def test_what_was_begun_is_finished(crash: Crash, replaced: str) -> None:
    crash.replace(*replaced)
    assert is_unfinished(crash.project)
    (said,) = recover(crash.project)
    assert "was finished (a, b)" in said
    assert crash.contents() == ["new", "new"]
    assert recover(crash.project) == []


def test_what_somebody_changed_before_it_was_replaced_is_kept_and_the_rest_taken_back(
    crash: Crash,
) -> None:
    crash.replace("a")
    (crash.root / "b").write_text("by a person")
    (said,) = recover(crash.project)
    assert "was taken back" in said
    assert crash.contents() == ["old", "by a person"]


def test_what_somebody_changed_after_it_was_replaced_is_kept_and_the_rest_finished(
    crash: Crash,
) -> None:
    crash.replace("a")
    (crash.root / "a").write_text("new, and by a person")
    (said,) = recover(crash.project)
    assert "was finished" in said
    assert crash.contents() == ["new, and by a person", "new"]


def test_changes_on_both_sides_are_both_kept_and_told(crash: Crash) -> None:
    crash.replace("a")
    (crash.root / "a").write_text("by a person")
    (crash.root / "b").write_text("by another")
    (said,) = recover(crash.project)
    assert f"left as they are: {crash.root / 'a'}" in said
    assert crash.contents() == ["by a person", "by another"]
    # What the person's file was made from.
    copies = list(ProjectLayout(crash.project).backups.rglob("a"))
    assert [path.read_text() for path in copies] == ["old"]


def test_half_a_staged_file_is_never_put_in_place(crash: Crash) -> None:
    assert crash.changes[1].staged is not None
    crash.changes[1].staged.write_text("n")
    crash.replace("a")
    recover(crash.project)
    assert crash.contents() == ["old", "old"]


def test_the_next_command_clears_up_and_says_so(crash: Crash) -> None:
    with ExchangeProject(crash.project) as opened:
        with opened.writing("write-back", dry_run=True) as dry:
            assert "unfinished" in dry.notes[0]
        assert is_unfinished(crash.project)
        with opened.writing("write-back") as session:
            assert "was finished" in session.notes[0]
    assert crash.contents() == ["new", "new"]


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../outside"},
        {"path": "/etc/passwd"},
        {"path": "."},
        {"path": "qprd/predictions/1\0.geojson"},
        {"staged": f"{ABANDONED}\0"},
        {"staged": "project.qpproj"},
        {"staged": f"../{ABANDONED}"},
        {"staged": f"qprd/{ABANDONED}"},
        {"staged": None},
        {"after": None},
        {"before": "digest", "path": "../../../project.qpproj"},
        {"path": "a\0b"},
    ],
)
def test_a_strangers_journal_leads_nowhere(crash: Crash, change: dict[str, Any]) -> None:
    journal = ProjectLayout(crash.project).journal
    record = json.loads(journal.read_text())
    record["files"][0] |= change
    journal.write_text(json.dumps(record))
    before = all_files(crash.project)
    with pytest.raises(QprdError):
        recover(crash.project)
    assert all_files(crash.project) == before


@pytest.mark.parametrize(
    "folder", ["", "..", "data", "qprd/backups", "qprd/backups/run", "/tmp/a/b"]
)
def test_a_journal_whose_backup_is_elsewhere_leads_nowhere(crash: Crash, folder: str) -> None:
    journal = ProjectLayout(crash.project).journal
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "folder": folder}))
    before = all_files(crash.project)
    with pytest.raises(QprdError, match="journal of an unfinished write is damaged"):
        recover(crash.project)
    assert all_files(crash.project) == before


def test_a_finished_write_can_be_taken_back_like_any_other(crash: Crash) -> None:
    crash.replace("a")
    recover(crash.project)
    ((step,),) = (run.steps for run in undoable(crash.project))
    assert [(file.path, step.copy_of(file.path).read_text()) for file in step.manifest.files] == [
        ("a", "old"),
        ("b", "old"),
    ]


def test_a_step_that_was_killed_before_it_changed_anything_is_removed(project: Path) -> None:
    folder = write(project, "b")
    assert folder is not None
    (folder / "0002" / "qprd").mkdir(parents=True)
    (folder.with_name("2099-01-01T00-00-00.000000Z") / "0001").mkdir(parents=True)
    with WriteAccess(project, "exchange").session("write-back"):
        pass
    assert [path.name for path in folder.iterdir()] == ["0001"]
    assert list(folder.parent.iterdir()) == [folder]


def test_backups_of_earlier_versions_are_still_read(project: Path) -> None:
    folder = write(project, "b")
    assert folder is not None
    manifest = folder / "0001" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["subject"] = {"entry": "1", "image": "a.svs", "imported": None}
    for file in record["files"]:
        del file["staged"]
    del record["folder"]
    manifest.write_text(json.dumps(record))
    ((step,),) = (run.steps for run in undoable(project))
    assert step.manifest.subject == SUBJECT


def test_a_path_that_no_file_can_have_is_refused(project: Path) -> None:
    folder = write(project, "b")
    assert folder is not None
    manifest = folder / "0001" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["files"][0]["path"] = "a\0b"
    manifest.write_text(json.dumps(record))
    with pytest.raises(QprdError, match="cannot be found"):
        undoable(project)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "replacing"}'])
def test_a_damaged_journal_stops_writing_and_is_named(crash: Crash, text: str) -> None:
    journal = ProjectLayout(crash.project).journal
    journal.write_text(text)
    with pytest.raises(QprdError) as caught:
        write(crash.project, "b")
    assert caught.value.where == str(journal)
