"""Files and folders written whole or not at all, and what killed writers leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.atomic import (
    find_temporary,
    is_abandoned,
    remove_folder,
    remove_temporary,
    replacing,
    replacing_folder,
    temporary_name,
    write_errors,
)
from qprd.files.layout import ProjectLayout
from qprd.files.session import WriteAccess

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
DAY_S = 24 * 3600


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(write: Callable[[], object]) -> None:
    """Run this in a process that is killed at the end of it."""
    child = os.fork()
    if child == 0:
        write()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def kill_while_writing(path: Path) -> None:
    def write() -> None:
        with replacing(path) as new:
            new.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    killed(write)


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with replacing(tmp_path / "a") as new:
        new.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with replacing_folder(tmp_path / "a") as new:
        (new / "new").touch()
        assert names(tmp_path / "a") == ["old"]
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()

    def fail(path: Path) -> None:
        path.touch()
        raise error

    with pytest.raises(error), replacing(tmp_path / "file") as new:
        fail(new)
    with pytest.raises(error), replacing_folder(tmp_path / "folder") as new:
        fail(new / "half")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path / "folder") == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_survives_a_failure_of_either_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    rename, calls = Path.rename, 0

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "a") as new:
        (new / "new").touch()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old"]


@needs_fork
def test_a_folder_survives_a_kill_between_the_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    rename = Path.rename

    def die_before_the_second(path: Path, target: Path) -> Path:
        if target.name == "a":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    def write() -> None:
        with replacing_folder(tmp_path / "a") as new:
            (new / "new").touch()

    monkeypatch.setattr(Path, "rename", die_before_the_second)
    killed(write)
    monkeypatch.undo()
    assert "a" not in names(tmp_path)
    for left in find_temporary(tmp_path, depth=0):
        assert is_abandoned(left)
        remove_temporary(left)
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old"]


def test_a_folder_is_removed_whole_and_a_missing_one_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    remove_folder(tmp_path / "a")
    remove_folder(tmp_path / "none")
    assert names(tmp_path) == []


def test_a_full_disk_and_missing_rights_each_say_what_to_do(tmp_path: Path) -> None:
    for number, fix in ((28, "Free some disk space"), (13, "Make the folder writable")):
        with pytest.raises(QprdError, match="The page cannot be written: Oh") as caught:  # noqa: SIM117
            with write_errors("The page", tmp_path):
                raise OSError(number, "Oh")
        assert fix in str(caught.value.fix)


# --- what killed writers leave behind


@needs_fork
def test_only_what_belongs_to_no_living_process_is_abandoned(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "a")
    living = temporary_name(tmp_path / "b")
    living.touch()
    (tmp_path / ".hidden.tmp").touch()
    (dead,) = (path for path in tmp_path.iterdir() if is_abandoned(path))
    assert dead.name.startswith(".a.")
    assert sorted(find_temporary(tmp_path, depth=0)) == sorted([dead, living])


def test_what_another_computer_writes_is_abandoned_after_a_week(tmp_path: Path) -> None:
    path = tmp_path / ".a.00000000-1-00000000.tmp"
    path.touch()
    assert not is_abandoned(path)
    old = time.time() - 8 * DAY_S
    os.utime(path, (old, old))
    assert is_abandoned(path)


@needs_fork
def test_the_next_command_removes_what_was_left_in_a_project(tmp_path: Path) -> None:
    layout = ProjectLayout(tmp_path / "project.qpproj")
    (layout.results / "1").mkdir(parents=True)
    (tmp_path / "data" / "1").mkdir(parents=True)
    for path in (
        layout.project,
        tmp_path / "data" / "1" / "data.qpdata",
        layout.results / "2",
        layout.results / "1" / "review.geojson",
        layout.root / "cache",
    ):
        kill_while_writing(path)
    living = temporary_name(layout.results / "3")
    living.mkdir()
    assert len(layout.leftovers()) == 5
    layout.require_writable()
    assert list(find_temporary(tmp_path, depth=4)) == [living]


def test_what_earlier_versions_left_is_removed_after_a_week(tmp_path: Path) -> None:
    layout = ProjectLayout(tmp_path / "project.qpproj")
    left = [layout.root / "cache-a1b2_3cd", layout.results / ".1.0123abcd.partial"]
    kept = [tmp_path / "cache-pictures", layout.root / "cache-of-mine", layout.results / "1"]
    for folder in (*left, *kept):
        folder.mkdir(parents=True)
        (folder / "a").touch()
    assert layout.leftovers() == []
    old = time.time() - 8 * DAY_S
    for folder in (*left, *kept):
        os.utime(folder, (old, old))
    assert sorted(layout.leftovers()) == sorted(left)
    layout.remove_leftovers()
    assert [folder.exists() for folder in (*left, *kept)] == [False] * 2 + [True] * 3


@needs_fork
def test_nothing_is_removed_that_a_journal_may_name(tmp_path: Path) -> None:
    layout = ProjectLayout(tmp_path / "project.qpproj")
    layout.root.mkdir()
    kill_while_writing(layout.project)
    layout.journal.touch()
    assert layout.leftovers() == []
    layout.journal.unlink()
    assert len(layout.leftovers()) == 1


def test_who_holds_the_lock_also_removes_what_another_computer_left(tmp_path: Path) -> None:
    layout = ProjectLayout(tmp_path / "project.qpproj")
    foreign = ".a.00000000-1-00000000.tmp"
    for folder in (tmp_path, layout.predictions, layout.results):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / foreign).touch()
    layout.require_writable()
    assert len(list(tmp_path.rglob(foreign))) == 3
    with WriteAccess(layout.project, "exchange").session("write-back"):
        pass
    assert list(tmp_path.rglob(foreign)) == [layout.results / foreign]


@needs_fork
def test_links_out_of_the_project_are_not_followed(tmp_path: Path) -> None:
    outside, project = tmp_path / "outside", tmp_path / "project"
    for name in ("data", "qprd"):
        (outside / name / "1").mkdir(parents=True)
        kill_while_writing(outside / name / "1" / "a")
    project.mkdir()
    (project / "data").symlink_to(outside / "data")
    (project / "qprd").mkdir()
    (project / "qprd" / "results").symlink_to(outside / "qprd")
    ProjectLayout(project / "project.qpproj").remove_leftovers()
    assert len(list(find_temporary(outside, depth=2))) == 2
    shutil.rmtree(outside)
