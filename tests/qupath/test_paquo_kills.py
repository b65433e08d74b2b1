"""SIGKILL while a real QuPath writes, removes, or is taken back: each image is old or new.

None may fork once Java runs, so each kill is of a process of its own. What it leaves is read, and
written again, by the QuPath of the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qprd.files.backups import read_runs, undoable
from qprd.jobs.undo import undo
from qprd.progress import SilentProgress
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.entrydata import EntryData
from qprd.qupath.java import QuPath
from qprd.qupath.paquo_backend import PaquoProject
from tests.helpers.killed_writes import clear_up, paquo_removal, paquo_write, spread, undo_write
from tests.helpers.kills import break_off, drive, leftovers
from tests.helpers.qupath_work import make_predictions, write
from tests.helpers.small_project import files_of

pytestmark = [
    pytest.mark.qupath,
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
]


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def digests(qupath: QuPath, project: Path, entry_id: str) -> Any:
    """Of all objects, ours included, as QuPath itself opens the project and reads the image."""
    from paquo._logging import redirect
    from paquo.java import ArrayList, BufferedImage, File, ProjectIO

    with redirect():
        entries = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()
        entry = next(entry for entry in entries if str(entry.getID()) == entry_id)
        return qupath.bulk.digests(entry.readImageData().getHierarchy(), ArrayList())


class States:
    """What both images hold before and after a write, and which of it a project holds."""

    def __init__(self, qupath: QuPath, old: Path, new: Path) -> None:
        self._qupath = qupath
        self._states = [
            {entry: digests(qupath, project, entry) for entry in "12"} for project in (old, new)
        ]
        assert (self.of(old), self.of(new)) == (("old", "old"), ("new", "new"))

    def of(self, project: Path) -> tuple[str, ...]:
        return tuple(self._of(project, entry) for entry in "12")

    def _of(self, project: Path, entry: str) -> str:
        # Neither refused as damaged nor as having lost objects.
        folder = EntryFolder(project.parent / "data" / entry)
        assert EntryData.read(self._qupath, folder) is not None
        now = digests(self._qupath, project, entry)
        for name, state in zip(("old", "new"), self._states, strict=True):
            if len(self._qupath.bulk.changed(state[entry], now)) == 0:
                return name
        return "neither"


@pytest.fixture
def old(worked_project: Path) -> Path:
    """A project that a person has worked on, with predictions on its second image."""
    write(worked_project, 1, make_predictions("2", 80, bundle="old"))
    return worked_project


@pytest.fixture
def new(old: Path, tmp_path: Path) -> Path:
    """A copy with other predictions on both."""
    return changed_copy(old, tmp_path / "new", paquo_write)


def changed_copy(project: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(project.parent, folder)
    change(folder / project.name)
    return folder / project.name


class Kills:
    """Processes with Java that write to copies of a project, and are killed."""

    def __init__(self, template: Path, folder: Path, what: str) -> None:
        self._template = template
        self._folder = folder
        self._what = what

    def points(self) -> tuple[int, list[int]]:
        """How many there are, and which of them are just before a change."""
        _, code, told = self._run(0)
        assert code == 0
        count, changing = told
        return count, changing

    def at(self, points: Sequence[int]) -> list[tuple[Path, str]]:
        """The copies, and where each was killed."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(pool.map(self._run, points))
        assert {code for _, code, _ in done} == {-signal.SIGKILL}
        return [(copy, place) for copy, _, place in done]

    def _run(self, at: int) -> tuple[Path, int, Any]:
        copy = self._folder / f"copy {at}" / self._template.name
        shutil.copytree(self._template.parent, copy.parent)
        folder = self._folder / f"of {at}"
        job = {"write": self._what, "template": copy, "copies": folder, "at": at}
        done = drive(folder, job)
        told = json.loads(done.stdout)[0] if at == 0 else (folder / "place").read_text()
        return copy, done.returncode, told


def test_a_write_back_survives_sigkill_at_any_point(
    qupath: QuPath, old: Path, new: Path, tmp_path: Path
) -> None:
    states = States(qupath, old, new)
    kills = Kills(old, tmp_path / "kills", "paquo write")
    chosen = [-1, *spread(*kills.points(), least=50)]
    killed = kills.at(chosen)
    assert len(set(chosen)) >= 51
    kinds = Counter(states.of(copy) for copy, _ in killed)
    # Killed before the first image was written, between the two, and after both.
    assert set(kinds) == {("old", "old"), ("new", "old"), ("new", "new")}
    places = {place.partition(" ")[0].partition(":")[0] for _, place in killed}
    assert places >= {"inside", "open", "os.rename", "os.link", "os.remove"}
    for copy, place in killed:
        newest = undoable(copy)[0]
        had_ended = newest.folder.name != undoable(old)[0].folder.name and not newest.is_broken_off
        paquo_write(copy)
        assert states.of(copy) == ("new", "new"), place
        assert leftovers(copy) == [], place
        assert read_runs(copy)
        undo_write(copy)
        if had_ended:
            # Killed while it let go of the lock: what came after that is no repetition.
            assert place.startswith(("lock.py", "session.py")), place
            undo_write(copy)
        assert files_of(copy.parent) == files_of(old.parent), place
    copy, place = killed[len(killed) // 2]
    with PaquoProject(copy) as project:
        undo(project, everything=True, progress=SilentProgress())
    assert {
        name: content
        for name, content in files_of(copy.parent).items()
        if not name.startswith("qprd/")
    } == untouched(old), place


def untouched(project: Path) -> dict[str, bytes]:
    """The files of a project before any of its writes."""
    undone = project.parent.with_name("undone") / project.name
    shutil.copytree(project.parent, undone.parent)
    with PaquoProject(undone) as opened:
        undo(opened, everything=True, progress=SilentProgress())
    return files_of(undone.parent)


def test_a_removal_survives_it_too(qupath: QuPath, new: Path, tmp_path: Path) -> None:
    removed = changed_copy(new, tmp_path / "removed", paquo_removal)
    states = States(qupath, new, removed)
    kills = Kills(new, tmp_path / "kills", "paquo removal")
    _, changing = kills.points()
    for copy, place in kills.at(changing[len(changing) // 3 :: len(changing) // 5]):
        assert "neither" not in states.of(copy), place
        paquo_removal(copy)
        assert states.of(copy) == ("new", "new"), place
        assert leftovers(copy) == [], place
        undo_write(copy)
        assert files_of(copy.parent) == files_of(new.parent), place


def test_an_undo_of_what_qupath_wrote_survives_it_too(
    qupath: QuPath, old: Path, new: Path, tmp_path: Path
) -> None:
    """Of files that nobody changed since, which needs no Java."""
    states = States(qupath, new, old)
    job = {"write": "undo", "template": new, "how": "kill", "least": 0}
    (killed,) = break_off(tmp_path / "copies", job)
    assert len(killed) >= 30
    kinds = set()
    for copy, place, status in killed:
        assert status == signal.SIGKILL, place
        kinds.add(states.of(copy))
        if undoable(copy)[0].folder.name == undoable(new)[0].folder.name:
            undo_write(copy)
        assert files_of(copy.parent) == files_of(old.parent), place
        clear_up(copy)
        assert leftovers(copy) == [], place
    assert {("old", "old"), ("new", "new")} <= kinds
    assert not any("neither" in kind for kind in kinds)
