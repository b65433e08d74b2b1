"""The job scripts for clusters, run by this machine's shell with processes on its CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qprd.files.layout import ProjectLayout
from qprd.results.arrays import SCORE_MAP
from tests.examples.conftest import EXAMPLES
from tests.helpers.drawn_project import environment, stored

SCRIPTS = EXAMPLES / "cluster"
pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a Slurm job of two "GPUs"; what scontrol is asked for is in a file."""
    commands = tmp_path / "bin"
    commands.mkdir()
    python = sys.executable
    for name, body in {
        "qprd": f'exec {python} -m qprd "$@"',
        "torchrun": f'exec {python} -m torch.distributed.run "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/asked',
    }.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)
    path = f"{commands}:{environment()['PATH']}"
    return {**environment(), "PATH": path, "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "17"}


def start(script: str, project: Path, job: dict[str, str]) -> subprocess.Popen[str]:
    slides = project.parents[1]
    words = [SCRIPTS / script, project, slides, "--device", "cpu", "--stride", "128"]
    return subprocess.Popen(
        ["bash", *map(str, words)],
        env=job,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def scored(project: Path) -> list[str]:
    results = ProjectLayout(project).results
    return sorted(path.parent.name for path in results.glob(f"[!.]*/{SCORE_MAP}"))


@pytest.mark.parametrize("script", ["one_node.sbatch", "torchrun.sbatch", "array.sbatch"])
def test_two_processes_score_all_slides_and_write_them_back(
    trained_project: Path, job: dict[str, str], script: str
) -> None:
    count = 2 if script == "array.sbatch" else 1
    started = [start(script, trained_project, job) for _ in range(count)]
    told = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, told
    assert scored(trained_project) == ["1", "2", "3"]
    assert all(stored(trained_project, number).tiles for number in (1, 2, 3))
    assert list(ProjectLayout(trained_project).claims.iterdir()) == []


def test_a_job_whose_time_is_up_keeps_its_slides_and_queues_itself_again(
    trained_project: Path, job: dict[str, str], tmp_path: Path
) -> None:
    with start("array.sbatch", trained_project, job) as process:
        while not scored(trained_project):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "Terminated." in told
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    done = len(scored(trained_project))
    assert done < 3
    again = start("array.sbatch", trained_project, job)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert f"{done} of 3 slides are up to date" in told
    assert scored(trained_project) == ["1", "2", "3"]
