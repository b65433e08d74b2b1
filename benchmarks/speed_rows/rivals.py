"""Other programs on the same slide with the same network."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from qprd.bundle.reading import load_bundle, newest_bundle
from qprd.evaluation.calibration import Platt
from qprd.export.scorer import Score, TwoLogits
from qprd.export.wsinfer import CONFIG_FILE, MODEL_FILE, wsinfer_files
from qprd.files.layout import ProjectLayout
from speed_rows.row import Row, RowStart, Setup
from speed_rows.slides import write_slide
from speed_rows.whole_prediction import STRIDE, prepare, spent

RIVALS = ("wsinfer", "tiatoolbox")

_EDGE, _GLASS, _MPP = 3_072, 512, 0.5
_LONGEST_S = 300


def measure(setup: Setup) -> Iterator[Row]:
    """Patches a second, tissue detection included, start of the program and imports not.

    The rivals run what `qprd export --format wsinfer` writes: all of the network, both
    orientations and the smoothing.
    """
    slides = setup.folder / "slides"
    slides.mkdir()
    slide = slides / "slide.tif"
    write_slide(slide, (_EDGE + 2 * _GLASS,) * 2, [(_GLASS, _GLASS, _EDGE)], _MPP)
    prepare(setup.folder / "project", slide, _MPP, _MPP)
    model = _exported(setup.folder)
    ours: float | None = None
    for name in RIVALS:
        row: RowStart = (f"predict, every {STRIDE}th pixel", name, ">=", 1.0)
        python = setup.rivals.get(name)
        if python is None and importlib.util.find_spec(name) is not None:
            python = Path(sys.executable)
        if python is None:
            yield Row(*row, None, f"needs {name}: --{name} PYTHON names one that has it")
            continue
        if setup.device != "cpu":
            yield Row(*row, None, "compared on a CPU")
            continue
        if ours is None:
            found = spent(setup.folder / "project", "cpu")
            ours = found.tiles / found.seconds
        try:
            theirs, version = _run(python, name, slide, model)
        except subprocess.CalledProcessError as error:
            yield Row(*row, None, f"{name} failed: {error.stderr.strip().splitlines()[-1]}")
            continue
        except subprocess.TimeoutExpired:
            yield Row(*row, None, f"{name} took more than {_LONGEST_S} s")
            continue
        yield Row(
            row[0],
            f"{name} {version}",
            ">=",
            1.0,
            ours / theirs,
            f"{ours:.1f} and {theirs:.1f} patches/s, same network, 32 bit; contours and pictures "
            "included in ours",
        )


def _exported(folder: Path) -> Path:
    """The folder of the project's network for WSInfer."""
    bundle = newest_bundle(ProjectLayout(folder / "project" / "project.qpproj").bundles)
    model, info = load_bundle(bundle)
    score = Score(model, info.network.patch_px, info.scoring.patch_score)
    network = TwoLogits(score, Platt(1.0, 0.0))
    exported = folder / "model"
    exported.mkdir()
    for name, content in wsinfer_files(network, info).items():
        (exported / name).write_bytes(content)
    return exported


def _run(python: Path, name: str, slide: Path, model: Path) -> tuple[float, str]:
    """Patches a second, and the version."""
    home = model.parent / "home"
    # WSInfer asks for a list of published models at every start, and takes one that is there.
    registry = home / ".wsinfer-zoo" / "wsinfer-zoo-registry.json"
    registry.parent.mkdir(parents=True, exist_ok=True)
    registry.write_text('{"models": {}}', encoding="utf-8")
    results = model.parent / name
    program = Path(__file__).parent / "rival_programs" / f"with_{name}.py"
    done = subprocess.run(  # noqa: S603
        [python, program, slide, model / MODEL_FILE, model / CONFIG_FILE, results, str(STRIDE)],
        env={**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1", "WSINFER_FORCE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["patches"] / found["seconds"], found["version"]
