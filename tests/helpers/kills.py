"""Runs `killed_writes.py`, and what it must not leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import qprd
from qprd.files.layout import ProjectLayout

DRIVER = "tests.helpers.killed_writes"


def drive(folder: Path, *jobs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the jobs in a process of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs, default=str))
    search = os.pathsep.join(
        filter(None, (str(Path(qprd.__file__).parents[1]), os.environ.get("PYTHONPATH")))
    )
    return subprocess.run(
        [sys.executable, "-m", DRIVER, str(file)],
        # With a seed of its own each process would come to its points in another order.
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def break_off(folder: Path, *jobs: dict[str, Any]) -> list[list[tuple[Path, str, int]]]:
    """For each job the projects of which the writing was broken off, where, and the wait status."""
    done = drive(
        folder,
        *({"least": 50, **job, "copies": folder / str(n)} for n, job in enumerate(jobs)),
    )
    assert done.returncode == 0, done.stderr
    return [
        [(Path(copy), place, status) for copy, place, status in broken]
        for broken in json.loads(done.stdout)
    ]


def leftovers(project: Path) -> list[str]:
    """What a write must not leave: temporary files, the journal, halves of backups."""
    layout = ProjectLayout(project)
    return [
        *(path.name for path in project.parent.rglob("*.tmp")),
        *(path.name for path in (layout.journal,) if path.exists()),
        *(path.name for path in layout.backups.glob(".*")),
        *(path.name for path in layout.backups.glob("*") if not any(path.iterdir())),
    ]
