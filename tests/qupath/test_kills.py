"""Writes that are broken off: each image stays old or becomes new, and the next command succeeds.

`killed_writes.py` strikes at every moment before a change of a file, and at lines between, of a
whole session on two images. That covers a process that dies: what it had not handed to the system
is lost, what it had is there. It does not cover a computer that loses power, where the system's own
buffers are lost too: against that there is an fsync before each step that later ones rely on, which
no test here can prove; as it makes no difference to a process that dies, it is switched off here,
for speed. Kills of a real QuPath are in `test_paquo_kills.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from qprd.files.backups import undoable
from qprd.jobs.undo import undo
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.crash import Crash
from tests.helpers.killed_writes import (
    REFUSED,
    clear_up,
    exchange_removal,
    exchange_write,
    undo_write,
)
from tests.helpers.kills import break_off, leftovers
from tests.helpers.small_project import files_of, named_project, predictions

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A project with predictions for the first of its two images."""
    path = named_project(tmp_path / "old", "a.svs", "b.svs").path
    with ExchangeProject(path) as project, project.writing("write-back"):
        project.write_predictions(project.entries()[0], predictions(bundle="old"))
    return path


@pytest.fixture
def new(old: Path, tmp_path: Path) -> Path:
    """The same with others for both."""
    path = tmp_path / "new" / old.name
    shutil.copytree(old.parent, path.parent)
    exchange_write(path)
    assert set(files_of(path.parent)) - set(files_of(old.parent)) == {"qprd/predictions/2.geojson"}
    return path


def require_old_or_new(copy: Path, states: Iterable[Path]) -> tuple[bool, ...]:
    """Each file is wholly one or the other, and the project opens; whether each is the last."""
    found = files_of(copy.parent)
    known = [files_of(state.parent) for state in states]
    names = [name for name in sorted(known[-1]) if name.endswith(".geojson")]
    assert all(any(found.get(name) == state.get(name) for state in known) for name in names), copy
    with ExchangeProject(copy) as project:
        assert len([project.read_predictions(entry) for entry in project.entries()]) == 2
    return tuple(found.get(name) == known[-1][name] for name in names)


def require_writable(copy: Path, new: Path, before: Path) -> None:
    """The next write succeeds, clears up, and can be taken back by itself and with all before."""
    exchange_write(copy)
    assert files_of(copy.parent) == files_of(new.parent), copy
    assert leftovers(copy) == []
    undo_write(copy)
    assert files_of(copy.parent) == files_of(before.parent), copy
    with ExchangeProject(copy) as project:
        undo(project, everything=True, progress=SilentProgress())
    assert set(files_of(copy.parent)) == {copy.name}, copy


@pytest.mark.parametrize("write", ["exchange write", "exchange parts"])
def test_an_exchange_project_survives_sigkill_at_any_point(
    old: Path, new: Path, tmp_path: Path, write: str
) -> None:
    (broken,) = break_off(tmp_path / "copies", {"write": write, "template": old, "how": "kill"})
    assert len(broken) >= 50
    kinds = set()
    for copy, place, status in broken:
        assert status == signal.SIGKILL, place
        kinds.add(require_old_or_new(copy, (old, new)))
        require_writable(copy, new, old)
    # Killed before the first image was written, between the two, and after both.
    assert kinds == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize(("how", "least"), [("full", 0), ("interrupt", 50)])
def test_it_survives_a_full_disk_and_ctrl_c_at_any_point_too(
    old: Path, new: Path, tmp_path: Path, how: str, least: int
) -> None:
    job = {"write": "exchange write", "template": old, "how": how, "least": least}
    (broken,) = break_off(tmp_path / "copies", job)
    assert len(broken) >= max(least, 10)
    kinds = set()
    for copy, place, status in broken:
        assert os.waitstatus_to_exitcode(status) == REFUSED, place
        kinds.add(require_old_or_new(copy, (old, new)))
        if how == "full":
            # That there is no space to clear up is no excuse for leaving anything.
            assert leftovers(copy) == [], place
        require_writable(copy, new, old)
    done = {(True, True)} if how == "interrupt" else set()
    assert kinds == {(False, False), (True, False)} | done


def test_a_removal_and_an_undo_survive_it_too(old: Path, new: Path, tmp_path: Path) -> None:
    removed = tmp_path / "removed" / old.name
    shutil.copytree(new.parent, removed.parent)
    exchange_removal(removed)
    removals, undos = break_off(
        tmp_path / "copies",
        {"write": "exchange removal", "template": new, "how": "kill", "least": 0},
        {"write": "undo", "template": new, "how": "kill", "least": 0},
    )
    assert min(len(removals), len(undos)) >= 20
    for _, place, status in (*removals, *undos):
        assert status == signal.SIGKILL, place
    for copy, _, _ in removals:
        require_old_or_new(copy, (new, removed))
        exchange_removal(copy)
        assert files_of(copy.parent) == files_of(removed.parent), copy
        assert leftovers(copy) == []
        undo_write(copy)
        assert files_of(copy.parent) == files_of(new.parent), copy
    for copy, _, _ in undos:
        require_old_or_new(copy, (old, new))
        if undoable(copy)[0].folder.name == undoable(new)[0].folder.name:
            undo_write(copy)
        assert files_of(copy.parent) == files_of(old.parent), copy
    for broken in (removals, undos):
        require_writable(broken[len(broken) // 2][0], new, old)


def test_clearing_up_survives_it_too(tmp_path: Path) -> None:
    """Killed while it finishes, or takes back, what an earlier kill had left."""
    crashes = [
        Crash(named_project(tmp_path / name, "a.svs").path) for name in ("finish", "take back")
    ]
    for crash in crashes:
        crash.replace("a")
    (crashes[1].root / "b").write_text("by a person")
    job = {"write": "clear up", "how": "kill", "least": 15}
    finished, taken_back = break_off(
        tmp_path / "copies", *({**job, "template": crash.project} for crash in crashes)
    )
    for broken, end in ((finished, ["new", "new"]), (taken_back, ["old", "by a person"])):
        for copy, place, status in broken:
            assert status == signal.SIGKILL, place
            clear_up(copy)
            assert [(copy.parent / name).read_text() for name in "ab"] == end, place
            assert leftovers(copy) == []
