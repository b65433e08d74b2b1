"""`qprd train` in two processes on the CPU: one bundle, and that of one process."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qprd.bundle.names import HISTORY_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.jobs.train.run import runs_of
from tests.helpers.drawn_project import TRAINING, copied, environment, flags_of, train

CASES: dict[str, dict[str, Any]] = {
    "paper": {"recipe": "paper", "epochs": 2, "batch_size": 9, "lr": 1e-5},
    "closed form": {"recipe": "best", "batch_size": 5},
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
DEVICES = [sys.executable]
#: Of scores and losses. Adam makes a step of the rounding of a gradient that should be 0:
#: `tests.training.test_processes` compares students without that.
TOLERANCE = {"paper": 1e-2, "closed form": 1e-5}


def train_together(project: Path, how: list[str], **flags: Any) -> str:
    """Train in two processes, and return what was printed."""
    words = flags_of({**TRAINING, **flags, "backend": "exchange"})
    more = ["--devices", "2"] if how is DEVICES else []
    done = subprocess.run(
        [*how, "-m", "qprd", "train", str(project), *words, *more],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def figures(bundle: Path) -> dict[str, list[float]]:
    """Losses, and the raw scores of the validation patches."""
    validation = read_bundle_info(bundle).scoring.validation
    assert validation is not None
    history = bundle / HISTORY_FILE
    losses = []
    if history.exists():
        with history.open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return {"tumor": [*validation.tumor], "normal": [*validation.normal], "loss": losses}


@pytest.mark.slow
@pytest.mark.parametrize("how", [TORCHRUN, DEVICES], ids=["torchrun", "devices"])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(
    project: Path, tmp_path: Path, case: str, how: list[str]
) -> None:
    other = copied(project, tmp_path / "other")
    alone = figures(train(project, **CASES[case]).bundle)
    printed = train_together(other, how, **CASES[case])
    assert printed.count("Bundle:") == 1
    (bundle,) = (other.parent / "qprd" / "bundles").iterdir()
    together = figures(bundle)
    for name, expected in alone.items():
        np.testing.assert_allclose(
            together[name], expected, rtol=0, atol=TOLERANCE[case], err_msg=name
        )
    assert runs_of(other) == []
