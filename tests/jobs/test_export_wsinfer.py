"""WSInfer itself, run on a real slide, against qprd's scores of the same patches."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qprd.bundle.reading import load_bundle
from qprd.device import make_fabric
from qprd.export.wsinfer import CONFIG_FILE, MODEL_FILE
from qprd.jobs.export import export_model
from qprd.scoring.by_patch import score_patches
from qprd.slides.slide import Slide

SLIDE = "cmu-1-small-region.svs"


@pytest.fixture
def wsinfer() -> list[str]:
    """The command."""
    if given := os.environ.get("QPRD_WSINFER"):
        return [given]
    if importlib.util.find_spec("wsinfer") is None:
        pytest.skip("no WSInfer: install wsinfer, or name one by QPRD_WSINFER")
    return [sys.executable, "-m", "wsinfer"]


@pytest.mark.slow
def test_wsinfer_gives_the_probabilities_of_qprd(
    wsinfer: list[str], trained_project: Path, shared_data: Path, tmp_path: Path
) -> None:
    model = export_model(trained_project, "wsinfer", output=tmp_path / "m", weights=None).output
    slides, out, home = (tmp_path / name for name in ("slides", "out", "home"))
    slides.mkdir()
    (slides / SLIDE).symlink_to(shared_data / "slides" / SLIDE)
    # It looks for a list of published models at every start, and takes one that is there.
    registry = home / ".wsinfer-zoo" / "wsinfer-zoo-registry.json"
    registry.parent.mkdir(parents=True)
    registry.write_text(json.dumps({"models": {}}))
    environment = {"HOME": str(home), "HF_HUB_OFFLINE": "1", "WSINFER_FORCE_CPU": "1"}
    arguments = ["--wsi-dir", slides, "--results-dir", out, "--num-workers", "1"]
    arguments += ["--config", model / CONFIG_FILE, "--model-path", model / MODEL_FILE]
    done = subprocess.run(
        [*wsinfer, "run", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (out / "model-outputs-csv" / SLIDE).with_suffix(".csv")
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    network, info = load_bundle(bundle)
    assert info.scoring.calibration is not None
    edge = info.network.patch_px
    with Slide(shared_data / "slides" / SLIDE) as slide:
        # What lies beyond the slide is black to WSInfer and white to qprd.
        rows = [
            row
            for row in csv.DictReader(table.read_text().splitlines())
            if 0 <= int(row["minx"]) <= slide.width - edge
            and 0 <= int(row["miny"]) <= slide.height - edge
        ]
        patches = [
            slide.read_region(int(row["minx"]), int(row["miny"]), edge, edge, None) for row in rows
        ]
    assert len(rows) > 1000
    scores = score_patches(
        network,
        np.stack(patches).transpose(0, 3, 1, 2),
        fabric=make_fabric("cpu", "32"),
        batch_size=256,
        reduction=info.scoring.patch_score,
    )
    expected = info.scoring.calibration.probability(scores)
    found = np.array([float(row["prob_Tumor"]) for row in rows])
    assert np.ptp(expected) > 0.1
    print(f"{len(rows)} patches, largest difference {np.abs(found - expected).max():.2e}")
    assert np.allclose(found, expected, rtol=0, atol=1e-3)
