"""A project of three painted slides, small enough to train on in seconds, and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import Polygon, box, mapping

import qprd
from qprd.demo.creation import NewSlide, create_project
from qprd.demo.slides import write_pyramidal_tiff
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.predict.summary import PredictSummary
from qprd.jobs.train.job import train_project
from qprd.jobs.train.run import stopped_run
from qprd.jobs.train.summary import TrainSummary
from qprd.predictions import Predictions
from qprd.progress import Progress, SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.settings import PredictConfig, TrainConfig

MPP = 0.5
WIDTH, HEIGHT = 640, 704
TUMOR = box(96, 96, 320, 352)
NORMAL = box(352, 96, 576, 608)
NAMES = ("first.tif", "second.tif", "third.tif")
PATCH_PX = 32

#: Trains in about a second: what is learned does not matter, only what becomes of it.
TRAINING: Mapping[str, Any] = {
    "teacher": "efficientnet_lite0",
    "patch_px": PATCH_PX,
    "normal": 16,
    "tumor": 8,
    "val_patches": 8,
    "epochs": 1,
    "batch_size": 24,
    "max_overlap": 0.8,
    "device": "cpu",
}
STRIDE = 128
PREDICTION: Mapping[str, Any] = {"stride": STRIDE, "device": "cpu"}


def painted(seed: int, *, tumor: bool = True) -> NDArray[np.uint8]:
    """Pink tissue on white; in `TUMOR`, crowded dark blots."""
    random = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), 243.0)
    tissue = (slice(64, HEIGHT - 64), slice(64, WIDTH - 64))
    grain = ndimage.gaussian_filter(random.normal(size=(HEIGHT, WIDTH)), 2)[..., None] * 120
    image[tissue] = (np.array([214.0, 150.0, 190.0]) + grain)[tissue]
    if tumor:
        left, top, right, bottom = (int(v) for v in TUMOR.bounds)
        blots = ndimage.gaussian_filter(random.normal(size=(bottom - top, right - left)), 4)
        dark = np.array([96.0, 50.0, 130.0])
        nest = image[top:bottom, left:right]
        image[top:bottom, left:right] = np.where((blots > -0.01)[..., None], dark, nest)
    return np.clip(image, 0, 255).astype(np.uint8)


def exported(regions: Iterable[tuple[str, Polygon]]) -> dict[str, object]:
    """Annotations, by class and outline, as QuPath exports them."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": mapping(polygon),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": [200, 0, 0]},
                },
            }
            for name, polygon in regions
        ],
    }


def outlines(tumor_class: str | None = "Tumor") -> dict[str, object]:
    """The drawn regions; None for the normal one alone."""
    tumor = [] if tumor_class is None else [(tumor_class, TUMOR)]
    return exported([*tumor, ("Normal", NORMAL)])


def make_project(folder: Path) -> Path:
    """Slides in ``folder/slides`` (train, val, without annotations), project in ``/project``."""
    slides = folder / "slides"
    slides.mkdir(parents=True)
    new = []
    for seed, (name, split) in enumerate(zip(NAMES, ("train", "val", None), strict=True)):
        write_pyramidal_tiff(painted(seed), slides / name, MPP)
        metadata = {} if split is None else {"split": split}
        drawn = None if split is None else outlines()
        new.append(NewSlide(slides / name, MPP, metadata, drawn))
    return create_project(folder / "project", new)


def draw_no_tumor_on(project: Path, entry_id: int) -> None:
    """Leave only normal tissue annotated on a slide."""
    file = project.parent / "qprd" / "annotations" / f"{entry_id}.geojson"
    file.write_text(json.dumps(outlines(None)), encoding="utf-8")


def annotate(project: Path, entry_id: int, drawn: dict[str, object] | None) -> None:
    """Replace the annotations of a slide; None removes them."""
    file = project.parent / "qprd" / "annotations" / f"{entry_id}.geojson"
    if drawn is None:
        file.unlink()
    else:
        file.write_text(json.dumps(drawn), encoding="utf-8")


def drawn(*parts: tuple[str, Polygon], predicted: bool = False) -> dict[str, object]:
    """Annotations of these classes and outlines as QuPath exports them."""
    features = outlines()["features"]
    assert isinstance(features, list)
    template = features[0]["properties"]
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": mapping(polygon),
                "properties": template
                | {"classification": {"name": name, "color": [200, 0, 0]}}
                | ({"measurements": {"qprd: mean score": 1.0}} if predicted else {}),
            }
            for name, polygon in parts
        ],
    }


def copied(project: Path, folder: Path) -> Path:
    """A copy of a project; its slides stay where they are.

    Weights are linked where that is possible: they are many megabytes, and only ever replaced.
    """
    shutil.copytree(project.parent, folder, copy_function=_link_weights)
    return folder / project.name


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def edit(project: Path, change: Any) -> None:
    """Let ``change`` edit the parsed project file."""
    root = json.loads(project.read_text(encoding="utf-8"))
    change(root)
    project.write_text(json.dumps(root), encoding="utf-8")


def turn(project: Path, entry_id: int) -> None:
    """Let QuPath show an image turned by 180 degrees, at which its size stays."""

    def change(root: Any) -> None:
        image = root["images"][entry_id - 1]
        builder = {"builderType": "rotated", "rotation": "ROTATE_180"}
        whole = image["serverBuilder"]
        image["serverBuilder"] = {**builder, "builder": whole, "metadata": whole["metadata"]}

    edit(project, change)


def training(**flags: object) -> TrainConfig:
    return train_config({**TRAINING, **flags})


def prediction(**flags: object) -> PredictConfig:
    return predict_config({**PREDICTION, **flags})


def train(
    project: Path,
    *,
    patches: Path | None = None,
    parent: Path | None = None,
    progress: Progress | None = None,
    **flags: object,
) -> TrainSummary:
    with ExchangeProject(project) as opened:
        return train_project(
            opened,
            training(**flags),
            patches=patches,
            parent=parent,
            progress=progress or SilentProgress(),
        )


def resume(
    project: Path,
    name: str | None = None,
    *,
    finish: bool = False,
    progress: Progress | None = None,
    **flags: object,
) -> TrainSummary:
    run = stopped_run(project, name)
    with ExchangeProject(project) as opened:
        return train_project(
            opened,
            run.config(flags, None),
            resumed=run,
            finish=finish,
            progress=progress or SilentProgress(),
        )


def predict(project: Path, *, bundle: Path | None = None, **flags: object) -> PredictSummary:
    write_back, force = (bool(flags.pop(name, False)) for name in ("write_back", "force"))
    with ExchangeProject(project) as opened:
        return predict_project(
            opened,
            prediction(**flags),
            bundle=bundle,
            write_back=write_back,
            force=force,
            progress=SilentProgress(),
        )


def flags_of(settings: Mapping[str, object]) -> list[str]:
    """Settings as command line options."""
    return [
        word
        for key, value in settings.items()
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]


def environment() -> dict[str, str]:
    """Of a child process: this checkout's qprd, one thread."""
    checkout = Path(qprd.__file__).parents[1]
    search = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run_qprd(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "qprd", *map(str, words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def snapshot(folder: Path, *, without: str | None = None) -> dict[str, bytes]:
    """All files below a folder and what is in them, but for those below a subfolder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (without is None or path.relative_to(folder).parts[0] != without)
    }


def unfinished(folder: Path) -> list[str]:
    """Files and folders that a broken-off write would leave."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if _is_unfinished(path)]


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith(".tmp")


def result(project: Path, entry_id: int) -> Path:
    return project.parent / "qprd" / "results" / str(entry_id)


def stored(project: Path, entry_id: int) -> Predictions:
    with ExchangeProject(project) as opened:
        return opened.read_predictions(opened.entries()[entry_id - 1])


def add_image(project: Path, entry_id: int, of: int, metadata: dict[str, str]) -> None:
    """Another image on the file of an image, as QuPath's *Duplicate image* makes it."""

    def add(root: Any) -> None:
        image = json.loads(json.dumps(root["images"][of - 1]))
        image |= {"entryID": entry_id, "imageName": f"copy {entry_id}", "metadata": metadata}
        root["images"].append(image)

    edit(project, add)
    drawn = project.parent / "qprd" / "annotations"
    (drawn / f"{entry_id}.geojson").write_bytes((drawn / f"{of}.geojson").read_bytes())


def add_slide(project: Path, path: Path, width: int, height: int, mpp: float | None = MPP) -> None:
    """Put a fourth image into a project."""

    def add(root):  # type: ignore[no-untyped-def]
        image = json.loads(json.dumps(root["images"][2]))
        image["entryID"], image["imageName"] = 4, path.name
        builder = image["serverBuilder"]
        builder["uri"] = path.as_uri()
        builder["metadata"] |= {"name": path.name, "width": width, "height": height}
        builder["metadata"]["levels"] = [{"downsample": 1.0, "width": width, "height": height}]
        side = {"value": 1.0, "unit": "px"} if mpp is None else {"value": mpp, "unit": "µm"}
        builder["metadata"]["pixelCalibration"] |= {"pixelWidth": side, "pixelHeight": side}
        root["images"].append(image)

    edit(project, add)
