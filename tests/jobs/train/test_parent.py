"""Going on from an earlier bundle, and what came from a review."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shapely.geometry import box, mapping

from qprd.bundle.ancestry import AnnotationChanges
from qprd.bundle.names import INFO_FILE, MODEL_FILE, PATCHES_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.errors import QprdError
from qprd.files.filestate import sha256_of
from qprd.given_settings import train_config
from qprd.jobs.train.parent import parent_settings
from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.teacher import build_teacher
from qprd.predictions import MEAN_SCORE
from tests.helpers.drawn_project import NAMES, edit, outlines, snapshot, train
from tests.helpers.evaluated import only_bundle

#: Inside the normal region of a slide.
REJECTED = box(380, 200, 460, 300)
ACCEPTED = box(120, 120, 220, 220)


def reviewed(path_class: str, region: Any) -> dict[str, object]:
    """A predicted contour that a person gave a class."""
    return {
        "type": "Feature",
        "geometry": mapping(region),
        "properties": {
            "objectType": "annotation",
            "name": "qprd 1",
            "classification": {"name": path_class, "color": [1, 2, 3]},
            "measurements": {MEAN_SCORE: 0.6},
        },
    }


def review(project: Path, entry_id: int = 1) -> None:
    drawn: Any = outlines()
    drawn["features"] += [reviewed("Normal", REJECTED), reviewed("Tumor", ACCEPTED)]
    file = project.parent / "qprd" / "annotations" / f"{entry_id}.geojson"
    file.write_text(json.dumps(drawn), encoding="utf-8")


def test_the_papers_recipe_starts_from_the_weights_of_its_parent(project: Path) -> None:
    parent = train(project, recipe="paper").bundle
    # A rate this small leaves the weights where they start.
    child = train(project, parent=parent, recipe="paper", lr=1e-12, seed=5)
    before, after = (load_file(folder / MODEL_FILE) for folder in (parent, child.bundle))
    new = build_network(FRD, build_teacher("efficientnet_lite0"), 5).trainable_state()
    trained = [name for name in before if name.endswith("weight") and before[name].ndim == 4]
    assert trained
    for name in trained:
        assert torch.allclose(after[name], before[name], atol=1e-6)
        assert not torch.allclose(new[name], before[name], atol=1e-3)


@pytest.mark.parametrize("tumor", [8, 0])
def test_best_is_fitted_anew_whatever_its_parent_was(project: Path, tumor: int) -> None:
    parent = train(project, tumor=8 - tumor, patch_px=64).bundle
    child = train(project, parent=parent, tumor=tumor)
    orphan = train(project, tumor=tumor)
    found, expected = (load_file(summary.bundle / MODEL_FILE) for summary in (child, orphan))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    ancestors = read_bundle_info(child.bundle).training.ancestors
    assert [ancestor.name for ancestor in ancestors] == [parent.name]


def test_a_bundle_records_its_ancestors_and_what_it_saw(trained_project: Path) -> None:
    first = only_bundle(trained_project)
    second = train(trained_project, parent=first)
    review(trained_project)
    third = train(trained_project, parent=second.bundle)
    infos = [read_bundle_info(bundle) for bundle in (first, second.bundle, third.bundle)]
    assert [len(info.training.ancestors) for info in infos] == [0, 1, 2]
    assert [ancestor.name for ancestor in infos[2].training.ancestors] == [
        infos[1].name,
        infos[0].name,
    ]
    assert infos[2].training.ancestors[0].sha256 == sha256_of(second.bundle / MODEL_FILE)
    assert [(slide.image, slide.count) for slide in infos[1].training.annotations] == [
        (NAMES[0], 2),
        (NAMES[1], 2),
    ]
    assert second.origin.changes == AnnotationChanges(0, 0, 0)
    assert third.origin.changes == AnnotationChanges(new=2, changed=0, gone=0)
    told = "\n".join(third.lines())
    assert f"Continued from {infos[1].name}: since then 2 annotations are new" in told
    assert read_bundle_info(first).training.review.accepted == 0


def test_what_came_from_a_review_is_told_and_recorded(project: Path) -> None:
    review(project)
    summary = train(project, hard_fraction=0.25)
    info = read_bundle_info(summary.bundle)
    assert info.training.review == summary.origin.review
    assert (summary.origin.review.accepted, summary.origin.review.rejected) == (1, 1)
    assert 4 <= summary.origin.review.normal_patches <= 7
    with (summary.bundle / PATCHES_FILE).open() as file:
        rows = [row for row in csv.DictReader(file) if row["reviewed"] == "yes"]
    assert len(rows) == summary.origin.review.normal_patches + summary.origin.review.tumor_patches
    assert {row["split"] for row in rows} == {"train"}
    assert "1 region accepted and 1 rejected, which gave" in "\n".join(summary.lines())


def test_settings_of_the_parent_hold_where_nothing_else_is_said(
    trained_project: Path, tmp_path: Path
) -> None:
    parent = parent_settings(only_bundle(trained_project))
    file = tmp_path / "qprd.toml"
    file.write_text("[train]\nnormal = 11\ntumor = 5\n")
    config = train_config({"tumor": 4}, file, parent)
    assert (config.normal, config.tumor, config.epochs) == (11, 4, parent.epochs)
    assert (config.teacher, config.patch_px) == (parent.teacher, parent.patch_px)
    elsewhere = parent.model_copy(update={"device": "cuda:7", "weights": "/x", "images": ("a",)})
    config = train_config({}, None, elsewhere)
    assert (config.device, config.weights, config.images) == ("auto", None, ())


@pytest.mark.parametrize(
    ("flags", "option"),
    [({"recipe": "best"}, "recipe"), ({"mpp": 1.0}, "mpp"), ({"patch_px": 64}, "patch-px")],
)
def test_weights_of_another_kind_are_refused(
    project: Path, flags: dict[str, Any], option: str
) -> None:
    parent = train(project, **{"recipe": "paper"} | flags).bundle
    before = snapshot(project.parent)
    with pytest.raises(QprdError, match=f"The bundle was trained with {option} ") as caught:
        train(project, parent=parent, recipe="paper")
    assert f"--{option}" in (caught.value.fix or "")
    assert snapshot(project.parent) == before


def test_a_bundle_without_weights_is_no_start(trained_project: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copy(only_bundle(trained_project) / INFO_FILE, bundle)
    with pytest.raises(QprdError, match=f"{MODEL_FILE} is missing"):
        train(trained_project, parent=bundle)
    with pytest.raises(QprdError, match="no bundle here"):
        parent_settings(tmp_path)


def test_slides_keep_their_splits_and_are_never_validated_on_after_training(
    trained_project: Path,
) -> None:
    def without_metadata(root: Any) -> None:
        for image in root["images"]:
            image["metadata"] = {}

    def swapped(root: Any) -> None:
        for image, split in zip(root["images"], ("val", "train"), strict=False):
            image["metadata"] = {"split": split}

    parent = only_bundle(trained_project)
    edit(trained_project, without_metadata)
    # A slide is known by its fingerprint, not by its name.
    edit(trained_project, lambda root: root["images"][0].update(imageName="renamed"))
    # Of these seeds one would choose the other slide to train on.
    for seed in (0, 1):
        child = train(trained_project, parent=parent, seed=seed)
        assert child.slides["train"] == ["renamed"]
        assert not any("names alone" in note for note in child.notes)
    edit(trained_project, swapped)
    with pytest.raises(QprdError, match="was trained on it: threshold and probability"):
        train(trained_project, parent=parent)


def test_slides_of_ancestors_count_as_seen(trained_project: Path) -> None:
    def only_second_and_third(root: Any) -> None:
        for image, split in zip(root["images"], ("test", "train", "val"), strict=True):
            image["metadata"] = {"split": split}

    parent = only_bundle(trained_project)
    file = trained_project.parent / "qprd" / "annotations" / "3.geojson"
    file.write_text(json.dumps(outlines()), encoding="utf-8")
    edit(trained_project, only_second_and_third)
    child = train(trained_project, parent=parent)
    info = read_bundle_info(child.bundle)
    assert [slide.name for slide in info.training.slides] == [NAMES[1], NAMES[0]]
    assert [slide.name for slide in info.training.validation_slides] == [NAMES[2]]
