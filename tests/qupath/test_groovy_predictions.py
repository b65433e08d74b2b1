"""Predictions that scripts bring into a real QuPath and take out of it again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from shapely.geometry import box

from qprd.files.layout import ProjectLayout
from qprd.jobs.undo import undo
from qprd.predictions import (
    MAX_SCORE,
    MEAN_SCORE,
    PROBABILITY,
    REVIEW_RANK,
    SCORE,
    PredictedContour,
    PredictedTile,
    Predictions,
    ReviewRegion,
    object_id,
)
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import AnnotationImport, PathClass
from qprd.qupath.scripts import script_folder
from tests.helpers.scored_project import score_project
from tests.helpers.script_session import (
    SETUP,
    dump,
    is_own,
    launcher,
    lead_to_slides,
    run,
)

ACCEPTED = object_id("new", "1", "contour", 0)


@pytest.fixture
def project(colon_project: Path, shared_data: Path) -> Path:
    """The colon project with its slides; skips where no QuPath runs scripts."""
    launcher()
    return lead_to_slides(colon_project, shared_data)


def predictions(entry_id: str) -> Predictions:
    return Predictions(
        tiles=tuple(
            PredictedTile(
                object_id("new", entry_id, "tile", i),
                64.0 * i,
                128.25,
                64.0,
                64.0,
                {SCORE: 1.5 + i, PROBABILITY: 0.25},
            )
            for i in range(200)
        ),
        contours=(
            PredictedContour(
                object_id("new", entry_id, "contour", 0),
                box(0, 0, 3000.55, 3000).difference(box(100, 100, 200, 200)),
                None,
                {MEAN_SCORE: 2.5, MAX_SCORE: 4.5},
            ),
        ),
        metadata={"qprd: score": "0.93", "qprd: bundle": "new"},
        review=(
            ReviewRegion(
                object_id("new", entry_id, "review", 0),
                box(500, 4000, 692, 4192),
                "2",
                {MEAN_SCORE: 2.0, REVIEW_RANK: 2.0},
            ),
        ),
    )


@pytest.mark.qupath
@pytest.mark.slow
def test_import_replaces_ours_and_touches_nothing_else(project: Path, tmp_path: Path) -> None:
    setup = tmp_path / "setup.groovy"
    setup.write_text(SETUP.replace("ACCEPTED", ACCEPTED))
    log = run(setup, project, "--save")
    before = dump(project, tmp_path / "before")
    assert sum(map(is_own, before["1"].values())) == 3, log
    with ExchangeProject(project) as opened:
        first = opened.entries()[0]
        opened.write_predictions(first, predictions("1"))
        meant = opened.read_predictions(first)
    classes = (project.parent / "classifiers" / "classes.json").read_text()

    # Metadata are saved with the objects, or not at all.
    run(script_folder() / "import_predictions.groovy", project)
    assert dump(project, tmp_path / "not saved") == before
    with ExchangeProject(project) as opened:
        assert "qprd: score" not in opened.entries()[0].metadata

    log = run(script_folder() / "import_predictions.groovy", project, "--save")
    assert (
        "200 tiles, 1 region to review and 1 contour into colon_1.tif, 3 earlier ones replaced"
        in log
    )
    assert "no predictions for colon_2.tif" in log
    after = dump(project, tmp_path / "after")

    # Objects of users: the same, only that one left a contour of ours that is gone.
    users = {key: item for key, item in before["1"].items() if not is_own(item)}
    (nested,) = (key for key, item in users.items() if item["parent"] not in {*users, "root"})
    assert users[nested]["name"] == "nested in an earlier contour"
    users[nested]["parent"] = "root"
    kept = {key: item for key, item in after["1"].items() if not is_own(item)}
    assert kept == users
    assert after["2"] == before["2"]

    # Ours: those of the file, at the root, with their measurements as QuPath keeps them.
    ours = {key: item for key, item in after["1"].items() if is_own(item)}
    assert len(ours) == 202
    (region,) = (item for item in ours.values() if item["class"] == "Review: qprd")
    assert region["measurements"] == {MEAN_SCORE: 2.0, REVIEW_RANK: 2.0}
    assert {item["parent"] for item in ours.values()} == {"root"}
    for tile in meant.tiles:
        assert ours[tile.id]["measurements"] == pytest.approx(dict(tile.measurements), rel=1e-6)
    (contour,) = (item for item in ours.values() if item["class"] == "Tumor: qprd")
    assert contour["name"] is None
    assert contour["id"].startswith("71707264-")
    # A user's accepted contour has this id.
    assert contour["id"] != ACCEPTED
    assert "3000.55" in contour["roi"]

    with ExchangeProject(project) as opened:
        first, second = opened.entries()
        assert first.metadata == {
            "split": "train",
            "stain": "H&E",
            "qprd-review by Anna": "done",
            "qprd: score": "0.93",
            "qprd: bundle": "new",
        }
        # Setup ran for all images.
        assert second.metadata == {
            "split": "val",
            "stain": "H&E",
            "qprd-review by Anna": "done",
            "qprd: old": "x",
        }
        names = [found["name"] for found in json.loads(classes)["pathClasses"]]
        assert [found.name for found in opened.classes()] == [*names, "Tumor: qprd", "Review: qprd"]

    run(script_folder() / "remove_qprd_objects.groovy", project, "--save")
    removed = dump(project, tmp_path / "removed")
    assert not any(is_own(item) for item in removed["1"].values())
    listed = json.loads((project.parent / "classifiers" / "classes.json").read_text())
    # A person has drawn with the one.
    assert [found["name"] for found in listed["pathClasses"]] == [*names, "Tumor: qprd"]


def written(project: Path, found: Predictions) -> None:
    """Write predictions for the first image, as a command does that can be taken back."""
    with ExchangeProject(project) as opened:
        first = opened.entries()[0]
        with opened.writing("write-back", [first]):
            opened.write_predictions(first, found)


@pytest.mark.qupath
@pytest.mark.slow
def test_undo_and_another_import_bring_the_earlier_results_back(
    project: Path, tmp_path: Path
) -> None:
    bring_in, take_out = (
        script_folder() / f"{name}.groovy" for name in ("import_predictions", "remove_qprd_objects")
    )
    before = dump(project, tmp_path / "before")
    first = predictions("1")
    written(project, first)
    run(bring_in, project, "--save")
    imported = dump(project, tmp_path / "imported")
    written(project, replace(first, tiles=first.tiles[:50], contours=()))
    run(bring_in, project, "--save")
    assert sum(map(is_own, dump(project, tmp_path / "again")["1"].values())) == 51
    for script, expected in ((bring_in, imported), (take_out, before)):
        with ExchangeProject(project) as opened:
            told = undo(opened, progress=SilentProgress()).lines()[-1]
        assert script.name in told
        run(script, project, "--save")
        assert dump(project, tmp_path / script.stem) == expected


@pytest.mark.qupath
@pytest.mark.slow
def test_an_import_that_is_killed_is_made_good_by_the_next(project: Path, tmp_path: Path) -> None:
    setup = tmp_path / "setup.groovy"
    setup.write_text(SETUP.replace("ACCEPTED", ACCEPTED))
    run(setup, project, "--save")
    written(project, predictions("1"))
    whole = project.parent.with_name("whole") / project.name
    shutil.copytree(project.parent, whole.parent)
    bring_in = (script_folder() / "import_predictions.groovy").read_text(encoding="utf-8")
    killed = tmp_path / "killed.groovy"
    for line in (
        "        entry.saveImageData(image.data)",
        "        metadata.each { key, value -> entry.putMetadataValue(key, value) }",
        "    image.project.syncChanges()",
    ):
        assert bring_in.count(f"{line}\n") == 1
        for text in (
            f"Runtime.getRuntime().halt(9)\n{line}",
            f"{line}\nRuntime.getRuntime().halt(9)",
        ):
            killed.write_text(bring_in.replace(line, text), encoding="utf-8")
            run(killed, project, "--save")
    for each in (project, whole):
        log = run(script_folder() / "import_predictions.groovy", each, "--save")
        assert "200 tiles, 1 region to review and 1 contour into colon_1.tif" in log
    found, meant = dump(project, tmp_path / "found"), dump(whole, tmp_path / "meant")
    for objects in (found["1"], meant["1"]):
        # The contour whose id a user's has gets another at random.
        (key,) = (
            k for k, item in objects.items() if is_own(item) and item["class"] == "Tumor: qprd"
        )
        objects["contour"] = {**objects.pop(key), "id": ""}
    assert found == meant
    with ExchangeProject(project) as one, ExchangeProject(whole) as other:
        assert [e.metadata for e in one.entries()] == [e.metadata for e in other.entries()]


@pytest.mark.qupath
@pytest.mark.slow
def test_results_of_another_image_are_refused(project: Path, shared_data: Path) -> None:
    score_project(project, shared_data)
    file = ProjectLayout(project).result("1") / "slide.json"
    slide = json.loads(file.read_text())
    file.write_text(json.dumps({**slide, "image": "another.tif"}))
    log = run(script_folder() / "overlay_heatmap.groovy", project)
    assert "has results of the image another.tif, and this image is colon_1.tif" in log
    assert "colon_2.tif: " in log


@pytest.mark.qupath
@pytest.mark.slow
def test_files_of_another_image_come_into_none(project: Path) -> None:
    regions = (("one", box(0, 0, 50, 50)),)
    imported = AnnotationImport("a.xml", PathClass("Metastasis", (9, 8, 7)), regions)
    run(script_folder() / "export_annotations.groovy", project)
    with ExchangeProject(project) as opened:
        for entry in opened.entries():
            opened.write_predictions(entry, predictions(entry.id))
            opened.import_annotations(entry, imported)
    folder = project.parent / "qprd"
    for kind in ("predictions", "annotations"):
        # As if ids had changed; and the second image has another name by now, and is still itself.
        text = (folder / kind / "2.geojson").read_text()
        root = json.loads(text)
        root["qprd"]["entry"] = "1"
        (folder / kind / "1.geojson").write_text(json.dumps(root))
    project.write_text(
        project.read_text().replace('"imageName": "colon_2.tif"', '"imageName": "b"')
    )
    for kind, result in (("annotations", "1 annotation"), ("predictions", "1 contour")):
        log = run(script_folder() / f"import_{kind}.groovy", project, "--save")
        assert (
            "is of the image colon_2.tif, and this image is colon_1.tif: nothing was changed" in log
        )
        assert f"{result} into b" in log


@pytest.mark.qupath
@pytest.mark.slow
def test_import_leaves_a_project_without_classes_qupaths_default_ones(project: Path) -> None:
    classes = project.parent / "classifiers" / "classes.json"
    classes.unlink()
    with ExchangeProject(project) as opened:
        opened.write_predictions(opened.entries()[0], predictions("1"))
    log = run(script_folder() / "import_predictions.groovy", project, "--save")
    assert "200 tiles, 1 region to review and 1 contour into colon_1.tif" in log
    assert not classes.exists() or json.loads(classes.read_text())["pathClasses"] == []


@pytest.mark.qupath
@pytest.mark.slow
def test_a_damaged_data_file_loses_nothing(project: Path, shared_data: Path) -> None:
    exported = project.parent / "qprd" / "annotations" / "1.geojson"
    exported.parent.mkdir(parents=True)
    shutil.copyfile(shared_data / "qupath/colon/annotations/colon_1.tif.geojson", exported)
    with ExchangeProject(project) as opened:
        opened.write_predictions(opened.entries()[0], predictions("1"))
    data = project.parent / "data" / "1" / "data.qpdata"
    data.write_bytes(data.read_bytes()[:100])
    text, damaged = exported.read_bytes(), data.read_bytes()

    log = run(script_folder() / "export_annotations.groovy", project)
    assert "nothing was exported" in log
    assert exported.read_bytes() == text

    log = run(script_folder() / "import_predictions.groovy", project, "--save")
    assert "nothing was imported" in log
    for name, said in (
        ("rethreshold", "nothing was changed"),
        ("remove_qprd_objects", "nothing was removed"),
        ("show_heatmap", "may be damaged"),
        ("overlay_heatmap", "may be damaged"),
        ("review_next", "may be damaged"),
    ):
        assert said in run(script_folder() / f"{name}.groovy", project, "--save")
    assert data.read_bytes() == damaged
    assert (project.parent / "qprd" / "backup" / "1.qpdata").read_bytes() == damaged
