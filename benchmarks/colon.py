"""Both recipes, plain RD and a tuned linear probe on the colon project; tiles and contours.

    python benchmarks/colon.py --data ../shared/data [--backend exchange] [--json FILE]

Trains on colon_1 and validates on colon_2 (two neighboring areas of one slide: an easy split, and
the regions were not drawn by a pathologist). Everything is measured on colon_2, which also chose
the threshold and, for the paper's recipe, the epoch: the AUROC of the last epoch, which nothing
chose, is printed beside it. It chose nothing of the best recipe and of the linear probe.

Slides and their patches are scored from large fields, the default; by the best recipe also patch by
patch (``--scoring patches``), as a transformer always scores them. ``--teacher`` and ``--weights``
are those of `qprd train`. Plain RD and the paper's recipe take minutes, and ``--no-students``
leaves them out.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from methods.interface import MethodOptions
from methods.registry import build_method
from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.evaluation.cells import tile_auroc
from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.evaluation.overlap import polygon_overlap
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.reporting import write_json_object
from qprd.jobs.train.job import train_project
from qprd.jobs.train.summary import TrainSummary
from qprd.progress import TerminalProgress
from qprd.qupath.entry_slides import open_slide, slide_mpp
from qprd.qupath.opening import open_project
from qprd.qupath.project import Entry, Project
from qprd.results.arrays import load_score_map
from qprd.results.folder import load_predictions
from qprd.sampling.dataset import decode_all
from qprd.sampling.regions import LabelRegions, label_regions
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig
from qprd.slides.tissue import tissue_mask
from qprd.version import __version__

_SETTINGS = {"normal": 300, "val_patches": 300}


@dataclass(frozen=True)
class PatchRow:
    """One method on the validation patches of colon_2."""

    method: str
    auroc: float
    accuracy: float
    last_epoch_auroc: float | None
    seconds: float


@dataclass(frozen=True)
class SlideFigures:
    """One prediction of colon_2 against its drawn regions."""

    scored: str
    tile_auroc: float
    iou: float
    iou_in_drawn: float
    iou_in_tissue: float
    seconds: float


def main() -> None:
    """Run all of it and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--backend", choices=("auto", "paquo", "exchange"), default="exchange")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--weights", metavar="FILE", help="of the teacher")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--students", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="32")
    parser.add_argument("--keep", type=Path, help="keep the project in this new folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "colon"
        project_file = _copy(arguments.data, folder)
        annotations = arguments.data / "qupath" / "colon" / "annotations"
        project, how = open_project(
            project_file,
            backend=arguments.backend,
            annotations=annotations if arguments.backend == "exchange" else None,
        )
        print(how, file=sys.stderr)
        with project:
            rows: list[PatchRow] = []
            bundles: list[Path] = []
            given = {"precision": arguments.precision, "weights": arguments.weights}
            for seed in range(arguments.seeds):
                of_seed = {**given, "teacher": arguments.teacher, "seed": seed}
                if arguments.students:
                    rows += _student_rows(project, {**of_seed, "epochs": arguments.epochs})
                of_best, bundles = _best_rows(project, of_seed)
                rows += of_best
            figures = [_slide_figures(project, bundle, given) for bundle in bundles]
    write_json_object(
        arguments.json, {"teacher": arguments.teacher, "patches": rows, "colon_2": figures}
    )
    _print(arguments.teacher, rows, figures)


def _copy(data: Path, folder: Path) -> Path:
    """A writable copy of the project with the slides beside it, where the program finds them."""
    shutil.copytree(data / "qupath" / "colon" / "project", folder / "project")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "slides").symlink_to((data / "slides").resolve(), target_is_directory=True)
    return folder / "project" / "project.qpproj"


def _student_rows(project: Project, given: dict[str, Any]) -> list[PatchRow]:
    """Plain RD and FRD."""
    rows = []
    for method, tumor in (("plain RD", 0), ("FRD, paper", 30)):
        config = train_config({**_SETTINGS, **given, "recipe": "paper", "tumor": tumor})
        summary = train_project(project, config, progress=TerminalProgress())
        rows.append(_network_row(f"{method}, seed {given['seed']}", summary))
    return rows


def _best_rows(project: Project, given: dict[str, Any]) -> tuple[list[PatchRow], list[Path]]:
    """The linear probe and ``best``, whose bundles are returned, that of the default last."""
    seed = given["seed"]
    best = train_config({**_SETTINGS, **given, "recipe": "best", "tumor": 30})
    default = train_project(project, best, progress=TerminalProgress())
    table = PatchTable.from_csv(default.bundle / PATCHES_FILE)
    rows, bundles = [_linear_row(project, table, best, seed)], [default.bundle]
    if read_bundle_info(default.bundle).scoring.by == "fields":
        by_patch = best.model_copy(update={"scoring": "patches"})
        patches = train_project(project, by_patch, progress=TerminalProgress())
        rows.append(_network_row(f"best, patch by patch, seed {seed}", patches))
        bundles.insert(0, patches.bundle)
    return [*rows, _network_row(f"best, seed {seed}", default)], bundles


def _network_row(method: str, summary: TrainSummary) -> PatchRow:
    last_epoch = None
    if summary.epochs:
        with (summary.bundle / HISTORY_FILE).open(encoding="utf-8", newline="") as file:
            last_epoch = float(list(csv.DictReader(file))[-1]["val_auroc"])
    assert summary.validation.auroc is not None
    assert summary.validation.accuracy is not None
    return PatchRow(
        method,
        summary.validation.auroc,
        summary.validation.accuracy,
        last_epoch,
        summary.seconds,
    )


def _linear_row(project: Project, table: PatchTable, config: TrainConfig, seed: int) -> PatchRow:
    """The tuned linear probe on the same patches."""
    started = time.perf_counter()
    entries = {entry.id: entry for entry in project.entries()}
    (train, train_tumor), (val, val_tumor) = (
        (_decoded(part, entries, config.patch_px), part.is_tumor)
        for part in (table.subset("train"), table.subset("val"))
    )
    weights = None if config.weights is None else str(config.weights)
    options = MethodOptions(teacher=config.teacher, teacher_weights=weights)
    probe = build_method("linear-tuned", "paper", options)
    probe.fit(train, train_tumor, val, val_tumor, seed=seed)
    scores = probe.score(val)
    best, area = accuracy_threshold(val_tumor, scores), auroc(val_tumor, scores)
    assert best is not None
    assert area is not None
    return PatchRow(
        f"linear probe, tuned, seed {seed}",
        area,
        best.accuracy,
        None,
        time.perf_counter() - started,
    )


def _decoded(table: PatchTable, entries: Mapping[str, Entry], patch_px: int) -> NDArray[np.uint8]:
    with tempfile.TemporaryDirectory() as folder:
        images = decode_all(
            table,
            lambda entry_id: open_slide(entries[entry_id]),
            patch_px=patch_px,
            folder=Path(folder),
        )
        return np.array(images)


def _slide_figures(project: Project, bundle: Path, given: dict[str, Any]) -> SlideFigures:
    """Predict colon_2 with a bundle and compare with the drawn regions."""
    config = predict_config({"images": ["colon_2.tif"], **given})
    summary = predict_project(
        project,
        config,
        bundle=bundle,
        write_back=True,
        progress=TerminalProgress(),
    )
    entry = next(entry for entry in project.entries() if entry.name == "colon_2.tif")
    regions, tissue = _regions(project, entry)
    folder = ProjectLayout(project.path).result(entry.id)
    area = tile_auroc(load_score_map(folder), regions.tumor_region, regions.normal_region)
    found = shapely.union_all([c.polygon for c in load_predictions(folder).contours])
    drawn = shapely.union_all([regions.tumor_region, regions.normal_region])
    iou = polygon_overlap(found, regions.tumor_region).iou
    in_drawn = polygon_overlap(found, regions.tumor_region, within=drawn).iou
    drawn_tissue = shapely.intersection(drawn, tissue)
    in_tissue = polygon_overlap(found, regions.tumor_region, within=drawn_tissue).iou
    assert area is not None
    assert iou is not None
    assert in_drawn is not None
    assert in_tissue is not None
    return SlideFigures(
        summary.slides[0].scoring,
        area,
        iou,
        in_drawn,
        in_tissue,
        summary.slides[0].seconds,
    )


def _regions(project: Project, entry: Entry) -> tuple[LabelRegions, shapely.Geometry]:
    with open_slide(entry) as slide:
        tissue = tissue_mask(slide)
        regions = label_regions(
            project.annotations(entry),
            slide.width,
            slide.height,
            mpp=slide_mpp(slide),
            tissue=tissue,
        )
    return regions, tissue.to_polygons()


def _print(teacher: str, rows: Sequence[PatchRow], figures: Sequence[SlideFigures]) -> None:
    print(
        f"\ncolon_1 -> colon_2, 300 normal + 30 tumor patches of 128 px at .5 um/px, "
        f"300 + 300 validation patches, {teacher}\nPython {platform.python_version()}, "
        f"torch {torch.__version__}, qprd {__version__}, {torch.get_num_threads()} threads\n"
    )
    print("| method | AUROC | accuracy | AUROC, last epoch | seconds |")
    print("|---|---|---|---|---|")
    for row in rows:
        last = "" if row.last_epoch_auroc is None else f"{row.last_epoch_auroc:.3f}"
        print(
            f"| {row.method} | {row.auroc:.3f} | {row.accuracy:.3f} | {last} | {row.seconds:.0f} |"
        )
    print("\nAll of colon_2 by best; IoU of the contours with Tumor:\n")
    print("| scored by | tile AUROC | IoU | in drawn regions | in their tissue | seconds |")
    print("|---|---|---|---|---|---|")
    for slide in figures:
        print(
            f"| {slide.scored} | {slide.tile_auroc:.3f} | {slide.iou:.3f} "
            f"| {slide.iou_in_drawn:.3f} | {slide.iou_in_tissue:.3f} | {slide.seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
