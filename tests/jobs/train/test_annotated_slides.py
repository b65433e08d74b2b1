"""What is drawn, and which slides it trains and validates on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qprd.bundle.names import PATCHES_FILE
from qprd.errors import QprdError
from qprd.jobs.train.job import train_project
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.sampling.table import PatchTable
from tests.helpers.drawn_project import (
    NAMES,
    add_image,
    edit,
    outlines,
    train,
    training,
)


def test_without_a_validation_slide_the_metadata_are_to_be_changed(project: Path) -> None:
    edit(project, lambda root: root["images"][1]["metadata"].update(split="train"))
    with pytest.raises(QprdError, match="no slide for validation") as caught:
        train(project)
    assert "split" in (caught.value.fix or "")


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
    assert "No annotations were found" in caught.value.problem
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
