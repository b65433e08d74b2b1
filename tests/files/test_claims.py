"""One process at a time at each piece of work, and none is lost with a process that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from qprd.files import claims as module
from qprd.files.claims import Claims, work_in_progress
from qprd.files.layout import ProjectLayout
from qprd.files.lock import locked
from tests.helpers.small_project import named_project

TAKES = """
import pathlib, sys
from qprd.files.claims import Claims
with Claims(pathlib.Path(sys.argv[1])) as claims:
    print(*(name for name in sys.argv[2:] if claims.take(name)), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return named_project(tmp_path / "project", "a.svs", "b.svs").path


@contextmanager
def another(project: Path, *names: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that takes what it can get, and what that is; it lives until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", TAKES, str(project), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()


def die(project: Path, *names: str) -> list[str]:
    """Claims of a process that was killed, and is not waited for yet."""
    with another(project, *names) as (process, taken):
        process.kill()
    return taken


def files(project: Path) -> list[str]:
    """The claims on work; processes have others of their own."""
    found = ProjectLayout(project).claims.iterdir()
    return sorted(path.name for path in found if not path.name.startswith("process-"))


def test_each_piece_of_work_goes_to_one_process(project: Path) -> None:
    with Claims(project) as claims:
        assert claims.take("1")
        assert not claims.take("1")
        with another(project, "1", "2") as (_, taken):
            assert taken == ["2"]
            assert not claims.take("2")
            assert claims.others_at_work(["1", "2", "3"]) == ["2"]
        assert claims.take("2")
        claims.release("1")
        assert claims.take("1")
    assert files(project) == []


def test_a_killed_process_is_known_at_once_and_its_work_taken_up(project: Path) -> None:
    with Claims(project) as claims:
        assert claims.take("0")
        with another(project, "1") as (process, taken):
            assert taken == ["1"]
            assert not claims.take("1")
            process.kill()
            # It is a zombie until it is waited for.
            deadline = time.monotonic() + 5
            while not claims.take("1") and time.monotonic() < deadline:
                time.sleep(0.01)
        assert files(project) == ["0.0", "1.0", "1.1"]
        claims.release("1")
        assert files(project) == ["0.0"]


def test_work_that_ends_one_process_after_the_other_is_left_out(project: Path) -> None:
    with Claims(project) as claims:
        assert claims.take("0")  # the run goes on
        assert die(project, "1") == ["1"]
        assert claims.problem_of("1") is None
        assert die(project, "1") == ["1"]
        assert not claims.take("1")
        assert "2 processes have died" in (claims.problem_of("1") or "")
        assert claims.others_at_work(["1"]) == []
    with Claims(project) as claims:  # all of it is started anew
        assert claims.take("1")


def test_what_failed_is_told_to_the_others_and_tried_again_by_the_next_run(project: Path) -> None:
    with Claims(project) as claims:
        assert claims.take("0")
        with Claims(project) as other:
            assert other.take("1")
            other.fail("1", "The slide is damaged.")
        assert not claims.take("1")
        assert claims.problem_of("1") == "The slide is damaged."
        assert claims.others_at_work(["1"]) == []
    with Claims(project) as claims:
        assert claims.problem_of("1") is None
        assert claims.take("1")


def test_a_process_on_another_computer_is_dead_after_some_time_without_a_sign_of_life(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Claims(project, beat_s=0.05) as claims:
        monkeypatch.setattr(module, "_this_host", lambda: "elsewhere")
        other = Claims(project, dead_after_s=0.5)
        assert claims.take("1")
        time.sleep(0.8)
        assert not other.take("1")
    file = ProjectLayout(project).claims / "2.0"
    with Claims(project) as claims:
        assert other.take("2")
        record = file.read_bytes()
        other.release("2")
        file.write_bytes(record.replace(b"elsewhere", b"a third one"))
        os.utime(file, (time.time() - 400,) * 2)
        assert claims.take("2")


@pytest.mark.parametrize(
    ("has_ended", "silent_s", "is_dead"), [(False, 0, False), (False, 400, True), (True, 0, True)]
)
def test_where_nothing_tells_when_a_process_started_its_signs_of_life_count(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_ended: bool,
    silent_s: float,
    is_dead: bool,
) -> None:
    monkeypatch.setattr(module, "_start_of", lambda _process: None)
    with Claims(project) as claims:
        assert claims.take("1")
        file = ProjectLayout(project).claims / "1.0"
        if has_ended:
            with subprocess.Popen([sys.executable, "-c", ""]) as process:
                process.wait()
            record = json.loads(file.read_text()) | {"process": process.pid}
            file.write_text(json.dumps(record))
        os.utime(file, (time.time() - silent_s,) * 2)
        (work,) = (work for work in work_in_progress(project) if work.name == "1")
        assert work.state == ("dead" if is_dead else "running")
        with Claims(project) as other:
            assert other.take("1") == is_dead


def test_a_claim_that_is_just_being_written_is_left_alone(project: Path) -> None:
    with Claims(project) as claims:
        (ProjectLayout(project).claims / "1.0").touch()
        assert not claims.take("1")
        assert claims.others_at_work(["1"]) == ["1"]


def test_others_can_see_who_is_at_what_and_who_has_died(project: Path) -> None:
    assert work_in_progress(project) == []
    with Claims(project) as claims:
        assert claims.take("1")
        assert claims.take("2")
        claims.fail("2", "The slide is damaged.")
        assert die(project, "3") == ["3"]
        found = {work.name: work for work in work_in_progress(project)}
        assert {name: work.state for name, work in found.items() if name} == {
            "1": "running",
            "2": "failed",
            "3": "dead",
        }
        assert found["1"].process == os.getpid()
        assert found["2"].problem == "The slide is damaged."
        assert all(datetime.fromisoformat(work.since).tzinfo for work in found.values())
        assert claims.take("3")
        states = {work.name: work.state for work in work_in_progress(project)}
        assert states["3"] == "running"
    assert [work.name for work in work_in_progress(project)] == ["2"]


def test_a_process_is_seen_also_while_it_is_at_nothing(project: Path) -> None:
    with Claims(project):
        (work,) = work_in_progress(project)
        assert (work.name, work.process, work.state) == (None, os.getpid(), "running")
    assert list(ProjectLayout(project).claims.iterdir()) == []


def test_the_lock_can_be_waited_for(project: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from qprd.files.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(0.3)\n"
    )
    (project.parent / "qprd").mkdir(exist_ok=True)
    command = [sys.executable, "-c", code, str(project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with locked(project, wait=True):
            assert process.wait() == 0
