"""SIGKILL while a project is written: each image old or new, and the next command succeeds.

`killed_writes.py` kills a write just before a line of the code that touches files, at many lines
spread over a whole session on two images, and some more after a time. That covers a process that
dies: what it had not handed to the system is lost, what it had is there. It does not cover a
computer that loses power, where the system's own buffers are lost too: against that there is an
fsync before each step that later ones rely on, which no test here can prove; as it makes no
difference to a process that dies, it is switched off here, for speed.

For a QuPath project most kills are of a process without Java, in which a stand-in puts in place
what a real QuPath wrote for the same predictions; all other code is the real one. What is left is
read, and written again, by a real QuPath. A few more kills are of whole processes with Java.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from killed_writes import clear_up, exchange_write, real_write, undo_write
from qupath_work import make_predictions
from small_project import files_of, named_project, predictions
from test_writing import Crash

import qprd
from qprd.jobs.undo import undo_project
from qprd.layout import ProjectLayout
from qprd.progress import SilentProgress
from qprd.qupath.backups import read_runs, undoable
from qprd.qupath.entrydata import EntryData, EntryFolder
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

DRIVER = Path(__file__).with_name("killed_writes.py")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def drive(folder: Path, *jobs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs, default=str))
    search = os.pathsep.join(
        filter(None, (str(Path(qprd.__file__).parents[1]), os.environ.get("PYTHONPATH")))
    )
    return subprocess.run(
        [sys.executable, str(DRIVER), str(file)],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def killed_copies(folder: Path, *jobs: dict[str, Any]) -> list[list[Path]]:
    """For each job the projects of which the writing was killed."""
    jobs = tuple({**job, "copies": folder / str(number)} for number, job in enumerate(jobs))
    done = drive(folder, *jobs)
    assert done.returncode == 0, done.stderr
    found = []
    for job, places in zip(jobs, json.loads(done.stdout), strict=True):
        assert {place.partition(":")[0] for place in places} >= {"journal.py", "writing.py"}
        names = [f"{n:03d}" for n in range(job["kills"])]
        names += [f"t{n:02d}" for n in range(job["timed"])]
        found.append([job["copies"] / name / job["template"].name for name in names])
    return found


def leftovers(project: Path) -> list[str]:
    layout = ProjectLayout(project)
    return [
        *(path.name for path in project.parent.rglob("*.tmp")),
        *(path.name for path in (layout.journal,) if path.exists()),
        *(path.name for path in layout.backups.glob(".*")),
    ]


def one_of(found: dict[str, bytes], states: Iterable[dict[str, bytes]], name: str) -> bool:
    return any(found.get(name) == state.get(name) for state in states)


def test_an_exchange_project_survives_sigkill_at_any_line(tmp_path: Path) -> None:
    template = named_project(tmp_path / "template", "a.svs", "b.svs").path
    with ExchangeProject(template) as project, project.writing("write-back"):
        project.write_predictions(project.entries()[0], predictions(bundle="old"))
    old = files_of(template.parent)
    written = tmp_path / "new" / template.name
    shutil.copytree(template.parent, written.parent)
    exchange_write(written)
    new = files_of(written.parent)
    assert set(new) - set(old) == {"qprd/predictions/2.geojson"}
    killed_writes, killed_undos = killed_copies(
        tmp_path / "copies",
        {"kind": "exchange", "template": template, "kills": 50, "timed": 5},
        {"kind": "undo", "template": written, "kills": 20, "timed": 2},
    )
    kinds = set()
    for copy in killed_writes:
        left = files_of(copy.parent)
        assert all(one_of(left, (old, new), name) for name in new), copy
        with ExchangeProject(copy) as project:
            assert len([project.read_predictions(entry) for entry in project.entries()]) == 2
        kinds.add(tuple(left.get(name) == new[name] for name in sorted(new)[1:]))
        exchange_write(copy)
        assert files_of(copy.parent) == new, copy
        assert leftovers(copy) == []
        with ExchangeProject(copy) as project:
            undo_project(project, everything=True, progress=SilentProgress())
        assert set(files_of(copy.parent)) == {template.name}, copy
    # Killed before the first image was written, between the two, and after both.
    assert kinds == {(False, False), (True, False), (True, True)}
    for copy in killed_undos:
        left = files_of(copy.parent)
        assert all(one_of(left, (old, new), name) for name in new), copy
        if undoable(copy)[0].folder.name == undoable(written)[0].folder.name:
            undo_write(copy)
        assert files_of(copy.parent) == old, copy
        exchange_write(copy)
        assert files_of(copy.parent) == new, copy
        assert leftovers(copy) == []


def test_clearing_up_survives_sigkill_too(tmp_path: Path) -> None:
    """Killed while it finishes, or takes back, what an earlier kill had left."""
    crashes = [
        Crash(named_project(tmp_path / name, "a.svs").path) for name in ("finish", "take back")
    ]
    for crash in crashes:
        crash.replace("a")
    (crashes[1].root / "b").write_text("by a person")
    job = {"kind": "clear up", "kills": 15, "timed": 0}
    finished, taken_back = killed_copies(
        tmp_path / "copies", *({**job, "template": crash.project} for crash in crashes)
    )
    for copies, end in ((finished, ["new", "new"]), (taken_back, ["old", "by a person"])):
        for copy in copies:
            clear_up(copy)
            assert [(copy.parent / name).read_text() for name in "ab"] == end, copy
            assert leftovers(copy) == []


# --- a real QuPath


def digests(qupath: QuPath, project: Path, entry_id: str) -> Any:
    """Of all objects, ours included, as QuPath itself opens the project and reads the image."""
    from paquo._logging import redirect
    from paquo.java import ArrayList, BufferedImage, File, ProjectIO

    with redirect():
        entries = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()
        entry = next(entry for entry in entries if str(entry.getID()) == entry_id)
        return qupath.bulk.digests(entry.readImageData().getHierarchy(), ArrayList())


def same(qupath: QuPath, one: Any, other: Any) -> bool:
    return len(qupath.bulk.changed(one, other)) == 0


class States:
    """What both images hold before and after a write, and which of it a project holds."""

    def __init__(self, qupath: QuPath, old: Path, new: Path) -> None:
        self._qupath = qupath
        self._states = [
            {entry: digests(qupath, project, entry) for entry in "12"} for project in (old, new)
        ]

    def of(self, project: Path) -> tuple[str, ...]:
        return tuple(self._of(project, entry) for entry in "12")

    def _of(self, project: Path, entry: str) -> str:
        now = digests(self._qupath, project, entry)
        for name, state in zip(("old", "new"), self._states, strict=True):
            if same(self._qupath, state[entry], now):
                return name
        return "neither"


@pytest.fixture
def written(worked_project: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A project with predictions on its second image, and a copy with others on both."""
    from qprd.qupath.paquo_backend import PaquoProject

    with PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2", 80, bundle="old"))
    copy = tmp_path / "new" / worked_project.name
    shutil.copytree(worked_project.parent, copy.parent)
    real_write(copy)
    return worked_project, copy


@pytest.mark.qupath
@pytest.mark.slow
def test_a_qupath_project_survives_sigkill_at_any_line(
    qupath: QuPath, written: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = written
    states = States(qupath, old, new)
    assert (states.of(old), states.of(new)) == (("old", "old"), ("new", "new"))
    kinds = set()
    replayed = {"kind": "replayed", "template": old, "prepared": new.parent / "data"}
    (copies,) = killed_copies(tmp_path / "copies", {**replayed, "kills": 60, "timed": 6})
    for copy in copies:
        left = states.of(copy)
        kinds.add(left)
        for entry in "12":
            folder = EntryFolder(copy.parent / "data" / entry)
            # Neither refused as damaged nor as having lost objects.
            assert EntryData.read(qupath, folder) is not None
        real_write(copy)
        assert states.of(copy) == ("new", "new"), copy
        assert leftovers(copy) == []
        assert read_runs(copy)
    assert kinds == {("old", "old"), ("new", "old"), ("new", "new")}


@pytest.mark.qupath
@pytest.mark.slow
def test_a_process_with_java_survives_it_too(
    qupath: QuPath, written: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = written
    states = States(qupath, old, new)

    def killed(name: str, at: int) -> tuple[Path, int, str]:
        copy = tmp_path / name / old.name
        shutil.copytree(old.parent, copy.parent)
        folder = tmp_path / f"of {name}"
        done = drive(folder, {"kind": "real", "template": copy, "copies": folder, "at": at})
        return copy, done.returncode, done.stdout

    whole, code, printed = killed("whole", 0)
    assert (code, states.of(whole)) == (0, ("new", "new"))
    (lines,) = json.loads(printed)
    for number in range(6):
        copy, code, _ = killed(str(number), 1 + number * (lines - 1) // 5)
        assert code == -signal.SIGKILL
        assert "neither" not in states.of(copy)
        real_write(copy)
        assert states.of(copy) == ("new", "new")
        assert leftovers(copy) == []
