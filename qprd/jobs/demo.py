"""``qprd demo``: create a small project of drawn slides, train on it, predict and write back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import shapely

from qprd.checked import Backend
from qprd.demo.creation import DEFAULT_CLASSES, NewSlide, create_project
from qprd.demo.slides import SyntheticSlide, draw_slide, write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.evaluation.cells import tile_auroc
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.predict.summary import PredictSummary
from qprd.jobs.train.job import train_project
from qprd.jobs.train.summary import TrainSummary
from qprd.progress import Progress, progress_bars
from qprd.qupath.geojson import annotation_feature
from qprd.qupath.opening import open_project
from qprd.results.arrays import load_score_map

#: Number of tumor nests and split of each slide. The last two are not annotated: the model has to
#: find their tumor by itself.
_SLIDES: Mapping[str, tuple[int, str | None]] = {
    "demo_1.tif": (6, "train"),
    "demo_2.tif": (4, "train"),
    "demo_3.tif": (5, "val"),
    "demo_4.tif": (5, None),
    "demo_5.tif": (0, None),
}
#: Id and name of the slide with tumor that is not annotated.
_UNSEEN = "4", "demo_4.tif"
_MPP = 0.5
_SIZE_PX = 2000, 2500

#: Few enough patches for a laptop, and enough to show the method at work.
_TRAINING: Mapping[str, object] = {
    "teacher": "efficientnet_lite0",
    "normal": 300,
    "tumor": 30,
    "val_patches": 60,
}


@dataclass(frozen=True)
class DemoSummary:
    """Results of the demo.

    Attributes:
        tile_auroc: AUROC of the tiles of the unannotated slide with tumor against the
            drawn outlines, or None where it is undefined.
    """

    project: Path
    training: TrainSummary
    prediction: PredictSummary
    tile_auroc: float | None
    seconds: float

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = [*self.training.lines(), *self.prediction.lines()]
        if self.tile_auroc is not None:
            lines.append(
                f"Tile AUROC on {_UNSEEN[1]}, which the model has not seen: {self.tile_auroc:.3f} "
                "(drawn slides are easy; real ones are not)."
            )
        lines.append(f"Demo project, made in {self.seconds:.0f} s: {self.project}")
        return lines


def run_demo(
    folder: str | Path,
    *,
    backend: Backend = "auto",
    seed: int = 0,
    progress: bool | Progress = True,
) -> DemoSummary:
    """Draw the demo's project, train on it, predict and write back, as ``qprd demo`` does.

    Args:
        folder: New or empty.
        backend: As for `open_project`.
        seed: Draws other slides.
        progress: False shows no bars.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[timm]`` is not installed.
    """
    started = time.perf_counter()
    bars = progress_bars(progress)
    file, drawn = _draw_project(Path(folder), _SIZE_PX, seed, bars)
    opened, _ = open_project(file, backend=backend)
    with opened:
        training = train_project(opened, train_config(_TRAINING), progress=bars)
        prediction = predict_project(opened, predict_config({}), write_back=True, progress=bars)
    return DemoSummary(
        project=file,
        training=training,
        prediction=prediction,
        tile_auroc=_unseen_auroc(ProjectLayout(file), drawn),
        seconds=time.perf_counter() - started,
    )


def draw_demo(
    folder: str | Path,
    *,
    size_px: tuple[int, int] = _SIZE_PX,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Path:
    """Draw five synthetic slides, and make a QuPath project of them, annotated on three.

    Args:
        folder: New or empty.
        size_px: Width and height of a slide, at 0.5 um/px.
        seed: Draws other slides.
        progress: False shows no bars.

    Returns:
        The project file.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[timm]`` is not installed.

    Examples:
        >>> path = qprd.draw_demo("another demo", size_px=(500, 500))
        >>> path.name
        'project.qpproj'
    """
    return _draw_project(Path(folder), size_px, seed, progress_bars(progress))[0]


def _draw_project(
    folder: Path, size_px: tuple[int, int], seed: int, progress: Progress
) -> tuple[Path, dict[str, SyntheticSlide]]:
    """Draw the project; give also what was drawn, by image name."""
    if folder.is_dir() and any(folder.iterdir()):
        raise QprdError(
            "The folder is not empty.", where=str(folder), fix="Name a new folder for the demo."
        )
    drawn, new = _draw_slides(folder / "slides", size_px, seed, progress)
    return create_project(folder / "project", new), drawn


def _draw_slides(
    folder: Path, size_px: tuple[int, int], seed: int, progress: Progress
) -> tuple[dict[str, SyntheticSlide], list[NewSlide]]:
    """Draw the slides into a new folder, and remove the folder if that fails."""
    drawn: dict[str, SyntheticSlide] = {}
    new: list[NewSlide] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with progress.task("drawing slides", len(_SLIDES)) as task:
            for index, (name, (nests, split)) in enumerate(
                _SLIDES.items(), seed * len(_SLIDES) + 1
            ):
                drawn[name] = draw_slide(index, *size_px, mpp=_MPP, tumor_nests=nests)
                write_pyramidal_tiff(drawn[name].image, folder / name, _MPP)
                metadata = {} if split is None else {"split": split}
                annotations = None if split is None else _annotations(drawn[name])
                new.append(NewSlide(folder / name, _MPP, metadata, annotations))
                task.advance()
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise QprdError(
                f"The slides cannot be written: {error.strerror or error}.",
                where=str(folder),
                fix="Free some disk space, or name a folder that you can write.",
            ) from error
        raise
    return drawn, new


def _annotations(drawing: SyntheticSlide) -> dict[str, object]:
    drawn = {"Tumor": drawing.tumor, "Normal": drawing.normal}
    return {
        "type": "FeatureCollection",
        "features": [
            annotation_feature(None, polygon, path_class, None)
            for path_class in DEFAULT_CLASSES
            for polygon in drawn.get(path_class.name, ())
        ],
    }


def _unseen_auroc(layout: ProjectLayout, drawn: Mapping[str, SyntheticSlide]) -> float | None:
    """AUROC of the tiles of the unannotated slide with tumor against what was drawn."""
    entry_id, name = _UNSEEN
    drawing = drawn[name]
    height, width = drawing.image.shape[:2]
    tumor = shapely.union_all(drawing.tumor)
    rest = shapely.difference(shapely.box(0, 0, width, height), tumor)
    return tile_auroc(load_score_map(layout.result(entry_id)), tumor, rest)
