from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from datetime import datetime, tzinfo
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
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.opening import open_project
from qprd.sampling.table import PatchTable
from tests.helpers.drawn_project import (
    NAMES,
    add_image,
    copied,
    draw_no_tumor_on,
    edit,
    outlines,
    snapshot,
    train,
    training,
    unfinished,
)


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


class OneSecond(datetime):
    """A clock on which all trainings end in the same second."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> OneSecond:
        return cls(2026, 1, 1, tzinfo=tz)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.jobs.train.job.datetime", OneSecond)
    first, again, other = train(project), train(project), train(project, seed=1)
    assert len({first.bundle, again.bundle, other.bundle}) == 3  # of one second
    models = [(s.bundle / "model.safetensors").read_bytes() for s in (first, again, other)]
    assert models[0] == models[1] != models[2]
    tables = [(s.bundle / PATCHES_FILE).read_text() for s in (first, again, other)]
    assert tables[0] == tables[1] != tables[2]


def test_a_table_from_an_earlier_bundle_gives_the_same_training(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    table = tmp_path / "shared.csv"
    table.write_bytes((bundle / PATCHES_FILE).read_bytes())
    summary = train(trained_project, patches=table)
    assert (summary.bundle / PATCHES_FILE).read_bytes() == table.read_bytes()
    model = "model.safetensors"
    assert (summary.bundle / model).read_bytes() == (bundle / model).read_bytes()


@pytest.mark.parametrize(
    ("edit_line", "message"),
    [
        (lambda line: line.replace(",0.5,", ",0.25,"), "is for 0.25 um/px"),
        (lambda line: "9" + line[1:], r"first.tif \(id 9\); no usable slide"),
        # Without a fingerprint, the name decides.
        (lambda line: line[:-32].replace("first.tif", "other.tif"), "of the slide other.tif"),
        (lambda line: line[:-32] + "0" * 32, "first.tif: its file is not what it was"),
        (lambda line: line[:-32].replace("first.tif", "other.tif") + "0" * 32, "another slide"),
        (lambda line: line[:-32] + "x" * 32, "fingerprint is 'xxx"),
        (lambda line: line + ",extra", "11 values instead of 10"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    trained_project: Path, tmp_path: Path, edit_line: Callable[[str], str], message: str
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    lines = (bundle / PATCHES_FILE).read_text().splitlines()
    table = tmp_path / "table.csv"
    table.write_text("\n".join([lines[0], edit_line(lines[1]), *lines[2:]]))
    with pytest.raises(QprdError, match=message):
        train(trained_project, patches=table)


def test_patches_of_another_size_than_the_models_are_refused(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    with pytest.raises(QprdError, match="px"):
        train(trained_project, patches=bundle / PATCHES_FILE, patch_px=96)


def test_patches_outside_their_slide_are_refused(trained_project: Path, tmp_path: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    lines = (bundle / PATCHES_FILE).read_text().splitlines()
    cells = lines[1].split(",")
    cells[2] = "620"
    table = tmp_path / "table.csv"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    with pytest.raises(QprdError, match="outside"):
        train(trained_project, patches=table)


def test_a_table_that_is_not_there_is_said(project: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(QprdError) as caught:
            train(project, patches=place)
        assert caught.value.where == str(place)


def test_without_tumor_patches_it_is_plain_reverse_distillation(project: Path) -> None:
    summary = train(project, tumor=0)
    assert summary.patches["train"] == {"normal": 16}
    assert summary.patches["val"]["tumor"] == 8  # the validation still needs both
    assert summary.validation.threshold is not None


def test_without_a_validation_slide_the_metadata_are_to_be_changed(project: Path) -> None:
    edit(project, lambda root: root["images"][1]["metadata"].update(split="train"))
    with pytest.raises(QprdError, match="no slide for validation") as caught:
        train(project)
    assert "split" in (caught.value.fix or "")


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


def test_a_single_slide_is_split_by_area_with_a_warning(project: Path) -> None:
    summary = train(project, images=(NAMES[0],), normal=6, tumor=4, val_patches=2)
    assert summary.slides["train"] == summary.slides["val"] == [NAMES[0]]
    assert any("slide" in note for note in summary.notes)


def test_too_few_patches_say_how_many_could_be_had(project: Path) -> None:
    with pytest.raises(QprdError) as caught:
        train(project, normal=100_000)
    assert "100000" in str(caught.value).replace(",", "")
    assert any(character.isdigit() for character in caught.value.problem)
    assert not list((project.parent / "qprd" / "bundles").glob("*"))


def test_a_class_that_does_not_exist_is_told_with_those_that_do(project: Path) -> None:
    with pytest.raises(QprdError) as caught:
        train(project, tumor_class=("tumour",))
    assert "Normal (2), Tumor (2)" in str(caught.value)
    assert "'Tumor'" in str(caught.value)


def test_a_project_without_annotations_says_what_to_do(project: Path) -> None:
    for file in (project.parent / "qprd" / "annotations").iterdir():
        file.unlink()
    with pytest.raises(QprdError) as caught:
        train(project)
    assert "no annotations" in caught.value.problem
    assert "draw" in (caught.value.fix or "").lower()


def test_annotations_that_nobody_exported_point_to_the_script(colon_project: Path) -> None:
    with ExchangeProject(colon_project) as opened, pytest.raises(QprdError) as caught:
        train_project(opened, training(), progress=SilentProgress())
    assert "export_annotations.groovy" in str(caught.value)
    assert "colon_1.tif" in str(caught.value)


def test_annotations_that_are_missing_for_one_slide_only_are_noted(
    colon_project: Path, shared_data: Path
) -> None:
    exported = colon_project.parent / "qprd" / "annotations" / "1.geojson"
    exported.parent.mkdir(parents=True)
    source = shared_data / "qupath" / "colon" / "annotations" / "colon_1.tif.geojson"
    exported.write_bytes(source.read_bytes())
    with ExchangeProject(colon_project) as opened:
        summary = train_project(
            opened, training(epochs=1, normal=8, tumor=4, val_patches=2), progress=SilentProgress()
        )
    assert any("colon_2.tif" in n and "export_annotations.groovy" in n for n in summary.notes)


def test_another_tumor_class_is_learned_by_its_name(project: Path) -> None:
    for file in (project.parent / "qprd" / "annotations").iterdir():
        file.write_text(json.dumps(outlines("Nest: small")))
    assert train(project, tumor_class=("Nest",)).patches["train"]["tumor"] == 8


def test_unannotated_slides_can_be_taken_as_normal(project: Path) -> None:
    edit(project, lambda root: root["images"][2]["metadata"].update(split="train"))
    summary = train(project, unannotated_normal=True)
    assert summary.slides["train"] == [NAMES[0], NAMES[2]]


def test_one_broken_slide_does_not_stop_the_others(project: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"not a slide")

    def add(root):  # type: ignore[no-untyped-def]
        image = json.loads(json.dumps(root["images"][0]))
        image["entryID"], image["imageName"] = 4, "broken.svs"
        image["serverBuilder"]["uri"] = broken.as_uri()
        root["images"].append(image)

    edit(project, add)
    drawn = project.parent / "qprd" / "annotations"
    (drawn / "4.geojson").write_bytes((drawn / "1.geojson").read_bytes())
    summary = train(project)
    assert summary.slides["train"] == [NAMES[0]]
    assert any(note.startswith("broken.svs:") for note in summary.notes)


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


def test_a_table_that_contradicts_the_metadata_is_refused(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    text = (bundle / PATCHES_FILE).read_text()
    swapped = text.replace(",train", ",?").replace(",val", ",train").replace(",?", ",val")
    (tmp_path / "swapped.csv").write_text(swapped)
    with pytest.raises(QprdError, match="its metadata in the project say"):
        train(trained_project, patches=tmp_path / "swapped.csv")


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


def test_an_error_of_sampling_tells_what_was_drawn_but_not_used(project: Path) -> None:
    for entry_id in (1, 2):
        file = project.parent / "qprd" / "annotations" / f"{entry_id}.geojson"
        drawn = json.loads(file.read_text())
        for feature in drawn["features"]:
            feature["geometry"]["coordinates"] = [[[-90, -90], [-60, -90], [-60, -60], [-90, -90]]]
        file.write_text(json.dumps(drawn))
    with pytest.raises(QprdError, match=r"note: .*outside the image"):
        train(project)


def test_a_slide_with_a_misspelled_class_alone_is_told(project: Path) -> None:
    file = project.parent / "qprd" / "annotations" / "2.geojson"
    text = file.read_text().replace('"Tumor"', '"Tumour"').replace('"Normal"', '"normal"')
    file.write_text(text)
    notes = "\n".join(train(project).notes)
    assert "Tumour" in notes
    assert "did you mean 'Tumor'" in notes


def test_a_slide_that_qupath_set_aside_for_testing_is_not_trained_on(project: Path) -> None:
    edit(
        project,
        lambda root: root["images"][0]["metadata"].update(
            {"Train/Validation/Test type": "Test", "split": ""}
        ),
    )
    drawn = project.parent / "qprd" / "annotations"
    (drawn / "3.geojson").write_bytes((drawn / "1.geojson").read_bytes())
    table = PatchTable.from_csv(train(project).bundle / "patches.csv")
    assert {patch.slide for patch in table.subset("train").patches} & {"1"} == set()


def test_metadata_that_contradict_each_other_stop_the_training(project: Path) -> None:
    edit(
        project,
        lambda root: root["images"][0]["metadata"].update(
            {"Train/Validation/Test type": "Test", "split": "train"}
        ),
    )
    with pytest.raises(QprdError, match="contradict"):
        train(project)


def test_trainings_that_end_in_the_same_second_get_a_bundle_each(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr("qprd.jobs.train.job.datetime", Stopped)
    first, second = train(project).bundle, train(project, seed=1).bundle
    assert second.name == f"{first.name}-2"
    assert [read_bundle_info(bundle).name for bundle in (first, second)] == [
        first.name,
        second.name,
    ]
    assert newest_bundle(first.parent) == second


def test_images_of_one_file_share_a_split(project: Path) -> None:
    add_image(project, 4, 1, {})
    add_image(project, 5, 2, {})
    summary = train(project)
    assert summary.slides["train"] == [NAMES[0], "copy 4"]
    assert summary.slides["val"] == [NAMES[1], "copy 5"]
    table = PatchTable.from_csv(summary.bundle / PATCHES_FILE)
    assert len({patch.fingerprint for patch in table.subset("train").patches}) == 1
    assert None not in {patch.fingerprint for patch in table.patches}


@pytest.mark.parametrize("annotated", [True, False])
def test_a_file_in_two_splits_stops_the_training(project: Path, annotated: bool) -> None:
    add_image(project, 4, 1, {"split": "test"})
    if not annotated:
        (project.parent / "qprd" / "annotations" / "4.geojson").unlink()
    with pytest.raises(QprdError, match="Images of one slide are in different splits") as caught:
        train(project)
    assert f"{NAMES[0]} (id 1) in train and copy 4 (id 4) in test" in caught.value.problem


def test_a_table_of_another_slide_is_refused_whatever_its_name(
    project: Path, tmp_path: Path
) -> None:
    table = train(project).bundle / PATCHES_FILE
    text = table.read_text()
    other = tmp_path / "other.csv"
    first, second = (text.splitlines()[line].rpartition(",")[2] for line in (1, -1))
    assert first != second
    other.write_text(text.replace(first, second))
    with pytest.raises(QprdError, match="its file is not what it was"):
        train(project, patches=other)
    edit(project, lambda root: root["images"][0].update(imageName="renamed"))
    assert train(project, patches=table).slides["train"] == ["renamed"]
