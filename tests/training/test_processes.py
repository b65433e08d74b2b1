"""Several processes train what one trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.drawn_project import environment

CASES = {
    "paper": ("paper", "6", "image", "patch"),
    "masks": ("paper", "6", "location", "mask"),
    "no tumor": ("best", "0", "image", "patch"),
    "closed form": ("best", "6", "image", "patch"),
}


def weights(file: Path, processes: int, case: str) -> dict[str, np.ndarray]:
    """Train in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [*(launcher if processes > 1 else []), "-m", "tests.helpers.training_process"]
    done = subprocess.run(
        [sys.executable, *words, str(file), *CASES[case]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "processes"), [*((case, 2) for case in CASES), ("paper", 4)], ids=str
)
def test_several_processes_train_what_one_trains(case: str, processes: int, tmp_path: Path) -> None:
    """24 patches in batches of 7: the last one has 3, so that one of four processes has none."""
    alone = weights(tmp_path / "one.safetensors", 1, case)
    together = weights(tmp_path / "several.safetensors", processes, case)
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        np.testing.assert_allclose(together[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
