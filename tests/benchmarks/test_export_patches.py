"""Patches of the real colon project: splits that never touch, provenance, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from harness.project_patches import ExportCounts, Exported, export_project
from qprd.errors import QprdError
from qprd.given_settings import train_config
from qprd.qupath.opening import open_project
from qprd.settings import TrainConfig

COUNTS = ExportCounts(train_normal=12, train_tumor=5, val=6, test=9)


def _config() -> TrainConfig:
    return train_config({"teacher": "efficientnet_lite0", "patch_px": 64, "seed": 1})


@pytest.fixture(scope="module")
def exported(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported, shapely.Geometry]:
    folder = tmp_path_factory.mktemp("export") / "patches"
    project, _ = open_project(
        shared_data / "qupath" / "colon" / "project" / "project.qpproj",
        backend="exchange",
        slides=[shared_data / "slides"],
        annotations=shared_data / "qupath" / "colon" / "annotations",
    )
    with project:
        done = export_project(project, folder, _config(), COUNTS, command="here")
        drawn = [
            annotation.geometry
            for entry in project.entries()
            if entry.name == "colon_2.tif"
            for annotation in project.annotations(entry)
            if annotation.class_name == "Tumor"
        ]
    return folder, done, shapely.union_all(drawn)


def test_every_split_has_what_was_asked_for(exported: tuple[Path, Exported, object]) -> None:
    _, done, _ = exported
    assert done.table.counts() == {
        ("train", "normal"): 12,
        ("train", "tumor"): 5,
        ("val", "normal"): 6,
        ("val", "tumor"): 6,
        ("test", "normal"): 9,
        ("test", "tumor"): 9,
    }


def test_test_patches_are_a_patch_apart_from_validation_and_from_other_slides(
    exported: tuple[Path, Exported, object],
) -> None:
    _, done, _ = exported
    boxes = {
        split: [
            shapely.box(p.x, p.y, p.x + p.size_px, p.y + p.size_px)
            for p in done.table.subset(split).patches
        ]
        for split in ("val", "test")
    }
    size_px = done.table.patches[0].size_px
    val = shapely.union_all(boxes["val"])
    assert min(shapely.distance(box, val) for box in boxes["test"]) >= size_px - 1e-6
    names = {s: {p.name for p in done.table.subset(s).patches} for s in ("train", "val", "test")}
    assert names == {"train": {"colon_1.tif"}, "val": {"colon_2.tif"}, "test": {"colon_2.tif"}}


def test_labels_follow_the_drawn_tumor(
    exported: tuple[Path, Exported, shapely.Geometry],
) -> None:
    _, done, tumor = exported
    for patch in done.table.subset("test").patches:
        square = shapely.box(patch.x, patch.y, patch.x + patch.size_px, patch.y + patch.size_px)
        share = shapely.intersection(square, tumor).area / square.area
        assert share >= 0.75 if patch.label == "tumor" else share <= 0.25


def test_the_files_say_what_they_are(exported: tuple[Path, Exported, object]) -> None:
    folder, done, _ = exported
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["split"]) for row in rows] == [
        ("1" if p.label == "tumor" else "0", p.split) for p in done.table.patches
    ]
    for row in rows:
        with Image.open(folder / "images" / f"{row['id']}.png") as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
            assert np.asarray(image).std() > 5
    provenance = json.loads((folder / "export.json").read_text())
    assert provenance["command"] == "here"
    assert provenance["patches"]["test_tumor"] == 9
    assert set(provenance["areas_level0_px"]["val"]) == {"colon_2.tif"}


def test_nothing_is_written_over(exported: tuple[Path, Exported, object], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(QprdError, match="not empty"):
        export_project(
            None,  # type: ignore[arg-type]
            tmp_path,
            _config(),
            COUNTS,
            command="",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
