"""``qprd predict`` in a process of its own: how long it takes, and its peak memory.

python benchmarks/speed_rows/whole_prediction.py FOLDER DEVICE
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qprd.config import predict_config, train_config
from qprd.jobs.predict import predict_project
from qprd.layout import ProjectLayout
from qprd.model.bundle import BundleInfo, Fitted, TeacherInfo, save_bundle
from qprd.model.frd import build_frd
from qprd.model.teacher import build_teacher
from qprd.progress import SilentProgress
from qprd.qupath.creation import NewSlide, create_project
from qprd.qupath.opening import open_project
from qprd.results_folder import load_score_map

_STRIDE = 64


@dataclass(frozen=True)
class Spent:
    """What a prediction took.

    Attributes:
        seconds: For the slide: reading, scoring, contours, pictures and files.
        peak_bytes: Largest resident memory of the process.
        cells: Cells of the score map.
        tiles: Cells that were scored.
    """

    seconds: float
    peak_bytes: int
    cells: int
    tiles: int


def prepare(folder: Path, slide: Path, mpp: float) -> None:
    """A project with one slide and an untrained model of ``efficientnet_lite0`` for it."""
    project = create_project(folder, [NewSlide(slide, mpp)])
    model = build_frd(build_teacher("efficientnet_lite0", pretrained=False), 0, "best")
    info = BundleInfo(
        name="untrained",
        teacher=TeacherInfo.of(model.teacher),
        mpp=mpp,
        patch_px=128,
        recipe="best",
        threshold=None,
        dense=Fitted(None, None, None),
        config=train_config({"teacher": "efficientnet_lite0"}).model_dump(mode="json"),
    )
    save_bundle(ProjectLayout(project).bundles / info.name, model, info)


def spent(folder: Path, device: str) -> Spent:
    """Predict what `prepare` made, in another process."""
    here = Path(__file__).resolve()
    done = subprocess.run(  # noqa: S603
        [sys.executable, here, folder, device],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, here.parents[1:3]))},
        capture_output=True,
        text=True,
        check=True,
    )
    return Spent(**json.loads(done.stdout))


def _main() -> None:

    file = Path(sys.argv[1]) / "project.qpproj"
    opened, _ = open_project(file, backend="exchange")
    with opened:
        config = predict_config({"stride": _STRIDE, "device": sys.argv[2]})
        summary = predict_project(opened, config, progress=SilentProgress())
    (slide,) = summary.slides
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cells = load_score_map(ProjectLayout(file).result(slide.entry_id)).scores.size
    scale = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(vars(Spent(slide.seconds, peak * scale, cells, slide.tiles))))


if __name__ == "__main__":
    _main()
