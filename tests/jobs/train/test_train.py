from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE, PLOT_FILE
from qprd.bundle.reading import load_bundle, newest_bundle, read_bundle_info
from qprd.errors import QprdError
from qprd.evaluation.calibration import Platt
from qprd.jobs.train.job import quality_notes, train_project
from qprd.progress import SilentProgress
from qprd.qupath.opening import open_project
from qprd.sampling.table import PatchTable
from tests.helpers.drawn_project import (
    NAMES,
    copied,
    draw_no_tumor_on,
    edit,
    snapshot,
    train,
    training,
    unfinished,
)
from tests.helpers.one_second import OneSecond


def test_a_bundle_holds_all_that_the_training_was(project: Path) -> None:
    before = snapshot(project.parent)
    summary = train(project, seed=3, tumor_class=("Tumor", "Lesion"))
    assert snapshot(project.parent).items() >= before.items()
    assert summary.bundle.parent == project.parent / "qprd" / "bundles"
    assert {path.name for path in summary.bundle.iterdir()} == {
        "bundle.json",
        "model.safetensors",
        PATCHES_FILE,
    }
    _, info = load_bundle(summary.bundle)
    assert info.training.config == training(seed=3, tumor_class=("Tumor", "Lesion")).model_dump(
        mode="json"
    )
    assert info.training.config["lr"] == 1e-3  # the teacher's default, as resolved
    assert [slide.name for slide in info.training.slides] == [NAMES[0]]
    assert [slide.name for slide in info.training.validation_slides] == [NAMES[1]]
    assert info.scoring.threshold is not None
    assert unfinished(project.parent) == []


def test_the_history_has_a_line_and_the_plot_a_picture_for_the_epochs(
    project: Path, real_pictures: None
) -> None:
    summary = train(project, epochs=3, recipe="paper", scoring="patches")
    with (summary.bundle / HISTORY_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert summary.best_epoch is not None
    best = rows[summary.best_epoch - 1]
    assert float(best["val_auroc"]) == summary.validation.auroc
    with Image.open(summary.bundle / PLOT_FILE) as picture:
        picture.verify()


def test_the_patch_table_counts_what_the_summary_tells(project: Path) -> None:
    summary = train(project)
    table = PatchTable.from_csv(summary.bundle / PATCHES_FILE)
    assert summary.patches == {
        "train": {"normal": 16, "tumor": 8},
        "val": {"normal": 8, "tumor": 8},
    }
    for split, counts in summary.patches.items():
        for label, count in counts.items():
            assert len(table.subset(split, label)) == count  # type: ignore[arg-type]
    told = "\n".join(summary.lines())
    assert "16 normal + 8 tumor patches from first.tif" in told
    assert str(summary.bundle) in told


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.jobs.train.job.datetime", OneSecond)
    first, again, other = train(project), train(project), train(project, seed=1)
    bundles = [first.bundle, again.bundle, other.bundle]  # of one second
    name = first.bundle.name
    assert [read_bundle_info(bundle).name for bundle in bundles] == [name, f"{name}-2", f"{name}-3"]
    assert newest_bundle(first.bundle.parent) == other.bundle
    models = [(s.bundle / "model.safetensors").read_bytes() for s in (first, again, other)]
    assert models[0] == models[1] != models[2]
    tables = [(s.bundle / PATCHES_FILE).read_text() for s in (first, again, other)]
    assert tables[0] == tables[1] != tables[2]


def test_without_tumor_patches_it_is_plain_reverse_distillation(project: Path) -> None:
    summary = train(project, tumor=0)
    assert summary.patches["train"] == {"normal": 16}
    assert summary.patches["val"]["tumor"] == 8  # the validation still needs both
    assert summary.validation.threshold is not None


def test_without_tumor_to_validate_on_there_is_no_threshold_and_that_is_said(project: Path) -> None:
    draw_no_tumor_on(project, 2)
    summary = train(project)
    assert summary.patches["val"] == {"normal": 8}
    assert summary.validation.threshold is None
    assert any("--threshold" in note for note in summary.notes)
    info = read_bundle_info(summary.bundle)
    assert (info.scoring.threshold, info.scoring.calibration, summary.validation.achieved) == (
        None,
        None,
        None,
    )
    assert "There is no threshold." in summary.lines()
    assert (summary.best_epoch, summary.epochs) == (None, 0)


def test_few_validation_patches_give_a_probability_with_its_figures_and_a_warning(
    project: Path,
) -> None:
    summary = train(project, val_patches=3)
    info = read_bundle_info(summary.bundle)
    assert isinstance(info.scoring.calibration, Platt)
    calibration = summary.validation.calibration
    assert info.scoring.calibration.reliability == calibration
    assert calibration is not None
    assert (calibration.n_tumor, calibration.n_normal) == (3, 3)
    error = calibration.expected_calibration_error
    assert f"expected calibration error {error:.3f}" in "\n".join(summary.lines())
    assert any("probability: Platt" in note and "few" in note for note in summary.notes)
    assert info.training.metrics["no_probability"] is None


def test_one_validation_patch_of_a_class_gives_no_probability_and_the_reason(project: Path) -> None:
    summary = train(project, val_patches=1)
    info = read_bundle_info(summary.bundle)
    assert (summary.validation.calibration, info.scoring.calibration) == (None, None)
    (note,) = [note for note in summary.notes if note.startswith("no probability")]
    assert "1 of tumor and 1 of normal" in note
    assert str(info.training.metrics["no_probability"]) in note
    assert info.scoring.threshold is not None


def test_a_training_that_diverged_is_said_and_leaves_no_bundle(project: Path) -> None:
    with pytest.raises(QprdError, match="not finite") as caught:
        train(project, recipe="paper", lr=1e30, epochs=2)
    assert "--lr" in str(caught.value)
    assert unfinished(project.parent) == []
    assert not list((project.parent / "qprd").glob("bundles/*"))


def test_an_image_name_of_any_length_and_kind_can_be_trained_on(project: Path) -> None:
    names = ["<script>alert(1)</script>" * 60, "../../[red]up\n\ud800.tif"]

    def rename(root):  # type: ignore[no-untyped-def]
        for image, name in zip(root["images"], names, strict=False):
            image["imageName"] = name

    edit(project, rename)
    summary = train(project)
    assert load_bundle(summary.bundle)[1].name == summary.bundle.name
    "\n".join(summary.lines()).encode("utf-8", errors="replace")


# --- the real project -----------------------------------------------------------------------

COLON = {"epochs": 1, "normal": 12, "tumor": 6, "val_patches": 4}


def train_colon(project: Path, shared_data: Path, backend: str) -> Path:
    folder = shared_data / "qupath" / "colon" / "annotations" if backend == "exchange" else None
    opened, _ = open_project(project, backend=backend, annotations=folder)  # type: ignore[arg-type]
    with opened:
        summary = train_project(opened, training(**COLON), progress=SilentProgress())
    assert summary.slides == {"train": ["colon_1.tif"], "val": ["colon_2.tif"], "test": []}
    return summary.bundle


def test_the_real_project_trains_through_exchange_files(
    colon_project: Path, shared_data: Path
) -> None:
    before = snapshot(colon_project.parent)
    bundle = train_colon(colon_project, shared_data, "exchange")
    assert read_bundle_info(bundle).training.patches == {
        "train_normal": 12,
        "train_tumor": 6,
        "val_normal": 4,
        "val_tumor": 4,
    }
    assert snapshot(colon_project.parent, without="qprd") == before


@pytest.mark.qupath
def test_both_backends_give_the_same_patches_and_the_same_model(
    colon_project: Path, shared_data: Path, tmp_path: Path
) -> None:
    other = copied(colon_project, tmp_path / "other")
    os.symlink(shared_data / "slides", tmp_path / "slides")  # noqa: PTH211
    exchange = train_colon(colon_project, shared_data, "exchange")
    paquo = train_colon(other, shared_data, "paquo")
    for file in (PATCHES_FILE, "model.safetensors"):
        assert (exchange / file).read_bytes() == (paquo / file).read_bytes(), file


@pytest.mark.parametrize(("auroc", "warned"), [(0.59, True), (0.61, False), (None, False)])
def test_a_model_of_no_use_is_said_to_be_one(auroc: float | None, warned: bool) -> None:
    notes = quality_notes(auroc, n_tumor=3, diverged=False)
    assert any("do not use its contours" in note for note in notes) == warned


@pytest.mark.parametrize("tumor", [0, 8])
def test_a_training_without_tumor_says_that_its_figures_are_of_little_use(
    project: Path, tumor: int
) -> None:
    notes = "\n".join(train(project, tumor=tumor).notes)
    assert ("without tumor patches" in notes) == (tumor == 0)


def test_settings_of_a_student_are_said_to_be_without_effect_where_there_is_none(
    project: Path,
) -> None:
    notes = "\n".join(train(project, epochs=3, lr=0.1).notes)
    assert "--epochs, --lr: without effect" in notes
    for flags in ({"recipe": "paper"}, {"tumor": 0}, {"epochs": 10}):
        assert "without effect" not in "\n".join(train(project, **flags).notes)


@pytest.mark.parametrize("option", ["head", "loss"])
def test_a_head_or_loss_that_nobody_added_is_refused_before_anything_is_read(
    option: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("qprd.jobs.train.job.prepare_patches")
    flags: dict[str, Any] = {option: "theirs"}
    with pytest.raises(QprdError, match=f"There is no {option} 'theirs'"):
        train(project, **flags)


def test_a_training_that_diverged_later_says_so() -> None:
    assert "--lr" in " ".join(quality_notes(0.9, n_tumor=3, diverged=True))


def test_a_test_slide_changes_neither_weights_nor_threshold(project: Path, tmp_path: Path) -> None:
    other = copied(project, tmp_path / "with a test slide")
    edit(other, lambda root: root["images"][2]["metadata"].update(split="test"))
    drawn = other.parent / "qprd" / "annotations"
    (drawn / "3.geojson").write_bytes((drawn / "1.geojson").read_bytes())
    without, with_test = train(project), train(other)
    assert with_test.patches["test"]["tumor"] > 0
    assert with_test.validation.threshold == without.validation.threshold
    model = "model.safetensors"
    assert (with_test.bundle / model).read_bytes() == (without.bundle / model).read_bytes()
