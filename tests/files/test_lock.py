"""One writer at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.files.lock import is_locked
from qprd.files.session import WriteAccess
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.small_project import files_of, named_project, predictions


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return named_project(tmp_path / "project", "a.svs", "b.svs").path


def write(project: Path) -> None:
    with ExchangeProject(project) as opened, opened.writing("write-back"):
        opened.write_predictions(opened.entries()[0], predictions())


def test_a_second_writer_is_refused_and_told_what_to_do(project: Path) -> None:
    before = files_of(project.parent)
    with WriteAccess(project, "exchange").session("write-back"):
        assert is_locked(project)
        with pytest.raises(QprdError, match="Another command of qprd is writing") as caught:
            write(project)
    assert "Wait until it has ended" in str(caught.value.fix)
    assert files_of(project.parent) == before
    assert not is_locked(project)
    write(project)


def test_a_writer_that_was_killed_does_not_lock_others_out(project: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from qprd.files.session import WriteAccess\n"
        "with WriteAccess(pathlib.Path(sys.argv[1]), 'exchange').session('x'):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(QprdError, match="Another command"):
            write(project)
        process.kill()
        process.wait()
    assert ProjectLayout(project).lock.exists()
    write(project)


def test_a_lock_that_is_a_link_out_of_the_project_is_refused(project: Path) -> None:
    outside = project.parents[1] / "outside"
    outside.touch()
    (project.parent / "qprd").mkdir()
    (project.parent / "qprd" / "lock").symlink_to(outside)
    with pytest.raises(QprdError, match="outside the project"):
        write(project)
    assert outside.read_bytes() == b""
