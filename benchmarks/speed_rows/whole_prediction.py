"""``qprd predict`` in a process of its own: how long it takes, and its peak memory.

python benchmarks/speed_rows/whole_prediction.py FOLDER DEVICE PRECISION
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qprd.bundle.records import (
    BundleInfo,
    NetworkInfo,
    ScoringInfo,
    TeacherInfo,
    TrainingInfo,
)
from qprd.bundle.writing import save_bundle
from qprd.demo.creation import NewSlide, create_project
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.job import predict_project
from qprd.model.assembly import build_network
from qprd.model.teacher import build_teacher
from qprd.progress import SilentProgress
from qprd.qupath.opening import open_project
from qprd.results.arrays import load_score_map
from qprd.settings import Precision, Recipe
from qprd.slides.fingerprint import SlideIdentity
from qprd.training.recipes import model_of

#: Half a patch, the default of a prediction.
STRIDE = 64


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


def prepare(
    folder: Path,
    slide: Path,
    slide_mpp: float,
    model_mpp: float,
    *,
    teacher: str = "efficientnet_lite0",
    recipe: Recipe = "best",
) -> None:
    """A project with one slide and an untrained model for it."""
    project = create_project(folder, [NewSlide(slide, slide_mpp)])
    prepare_model(project, model_mpp, teacher=teacher, recipe=recipe)


def prepare_model(
    project: Path,
    model_mpp: float,
    *,
    teacher: str = "efficientnet_lite0",
    recipe: Recipe = "best",
    slides: tuple[SlideIdentity, ...] = (),
) -> None:
    """An untrained model as a bundle of a project, as if it had been trained on some slides."""
    model = build_network(model_of(recipe, n_tumor=1), build_teacher(teacher, pretrained=False), 0)
    config = train_config({"teacher": teacher, "recipe": recipe})
    info = BundleInfo(
        name="untrained",
        network=NetworkInfo(
            TeacherInfo.of(model.teacher), recipe, model.kind, model_mpp, config.patch_px
        ),
        scoring=ScoringInfo(
            "patches" if model.teacher.sees_all else "fields", config.patch_score, threshold=None
        ),
        training=TrainingInfo(config=config.model_dump(mode="json"), slides=slides),
    )
    save_bundle(ProjectLayout(project).bundles / info.name, model, info)


#: glibc then gives every block of a megabyte back at once: what is resident is what is in use.
_TIDY = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}


def spent(folder: Path, device: str, *, precision: Precision = "32", tidy: bool = False) -> Spent:
    """Predict what `prepare` made, in another process.

    Args:
        folder: Of the project.
        device: As ``qprd predict --device`` takes it.
        precision: Likewise.
        tidy: Without what the allocator keeps for later, which makes it slower.
    """
    here = Path(__file__).resolve()
    done = subprocess.run(  # noqa: S603
        [sys.executable, here, folder, device, precision],
        env={
            **os.environ,
            **(_TIDY if tidy else {}),
            "PYTHONPATH": os.pathsep.join(map(str, here.parents[1:3])),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return Spent(**json.loads(done.stdout))


def _main() -> None:
    file = Path(sys.argv[1]) / "project.qpproj"
    opened, _ = open_project(file, backend="exchange")
    with opened:
        config = predict_config({"stride": STRIDE, "device": sys.argv[2], "precision": sys.argv[3]})
        summary = predict_project(opened, config, progress=SilentProgress())
    (slide,) = summary.slides
    cells = load_score_map(ProjectLayout(file).result(slide.entry_id)).scores.size
    print(json.dumps(vars(Spent(slide.seconds, peak_bytes(), cells, slide.tiles))))


def peak_bytes() -> int:
    """Largest resident memory; Linux's ``ru_maxrss`` starts at that of the parent process."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    _main()
