from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import MultiPolygon, box

from qprd import predictions as ours
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
from qprd.qupath.geojson import read_annotations
from qprd.qupath.image_record import image_record
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.precision import same_outline
from qprd.qupath.project import AnnotationImport, PathClass
from qprd.qupath.scripts import script_folder
from tests.helpers.qupath_work import BROKEN_OUTLINES, draw_broken_outlines, edit_in_qupath
from tests.helpers.scored_project import score_project
from tests.helpers.script_session import SETUP, launcher, run

SCRIPTS = (
    "export_annotations.groovy",
    "import_annotations.groovy",
    "import_predictions.groovy",
)

#: Writes all objects of the image, and their places in the hierarchy, to a file.
DUMP = """
def objects = getCurrentHierarchy().getAllObjects(false).collect { [
    id: it.getID().toString(),
    type: it.getClass().getSimpleName(),
    name: it.getName(),
    'class': it.getPathClass()?.toString(),
    locked: it.isLocked(),
    description: it.isAnnotation() ? it.getDescription() : null,
    parent: it.getParent().isRootObject() ? 'root' : it.getParent().getID().toString(),
    roi: it.getROI().getGeometry().norm().toText(),
    nucleus: it.isCell() ? it.getNucleusROI()?.getGeometry()?.toText() : null,
    measurements: new TreeMap(it.getMeasurements()),
] }
def gson = new com.google.gson.GsonBuilder().serializeNulls().create()
new File('TARGET/' + getProjectEntry().getID() + '.json').text = gson.toJson(objects)
"""

ACCEPTED = object_id("new", "1", "contour", 0)


@pytest.fixture
def project(colon_project: Path, shared_data: Path) -> Path:
    """The colon project with URIs that lead to its slides, as QuPath's window would make them."""
    launcher()
    text = colon_project.read_text()
    slides = (shared_data / "slides").resolve().as_uri()
    colon_project.write_text(text.replace("file:///data/colon/slides", slides))
    return colon_project


def dump(project: Path, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """All objects by entry id and object id."""
    folder.mkdir()
    script = folder / "dump.groovy"
    script.write_text(DUMP.replace("TARGET", str(folder)))
    log = run(script, project)
    found = {
        path.stem: {item["id"]: item for item in json.loads(path.read_text())}
        for path in folder.glob("*.json")
    }
    assert sorted(found) == ["1", "2"], log
    return found


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


def is_own(item: dict[str, Any]) -> bool:
    if item["type"] == "PathAnnotationObject":
        own_class = "qprd" in (item["class"] or "").split(": ")
        return own_class and MEAN_SCORE in item["measurements"]
    return (
        item["type"] == "PathTileObject"
        and item["name"] in (None, "qprd tile")
        and SCORE in item["measurements"]
    )


#: What the scripts call the names of `qprd.predictions`.
MIRRORED = {
    "OWN": ours.OWN,
    "REVIEW": ours.class_parts(ours.REVIEW_CLASS)[0],
    "OLD_TILE": ours.OLD_TILE_NAME,
    "FAULT": ours.FAULT,
    "OWN_PREFIX": ours.OWN_PREFIX,
    "OWN_SCORE": ours.SCORE,
    "OWN_PROBABILITY": ours.PROBABILITY,
    "OWN_MEAN_SCORE": ours.MEAN_SCORE,
    "OWN_MAX_SCORE": ours.MAX_SCORE,
    "OWN_MEAN_PROBABILITY": ours.MEAN_PROBABILITY,
    "OWN_AREA": ours.AREA_UM2,
    "OWN_NUMBER": ours.NUMBER,
    "OWN_RANK": ours.REVIEW_RANK,
    "OWN_BUNDLE": ours.BUNDLE,
    "OWN_THRESHOLD": ours.THRESHOLD,
    "OWN_PROBABILITY_THRESHOLD": ours.PROBABILITY_THRESHOLD,
    "OWN_THRESHOLD_SET_IN": ours.THRESHOLD_SET_IN,
    "CONTOUR_CLASS": ours.CONTOUR_CLASS,
    "CONTOUR_COLOR": list(ours.CONTOUR_COLOR),
    "TILE_COLOR": f"0x{ours.TILE_COLOR:08x}",
    "OWN_ID": f"0x{ours.OWN_ID[:8]}L",
}


def test_scripts_have_the_names_that_python_has() -> None:
    text = (script_folder() / "parts" / "names.groovy").read_text(encoding="utf-8")
    constants = dict(re.findall(r"^@Field static final \w+ (\w+) = (.*)$", text, re.MULTILINE))
    assert {name: value.strip("'") for name, value in constants.items()} == {
        name: str(value) for name, value in MIRRORED.items()
    }
    contours = (script_folder() / "parts" / "contours.groovy").read_text(encoding="utf-8")
    assert f"UUID.fromString('{ours._NAMESPACE}')" in contours


@pytest.mark.parametrize("path", sorted(script_folder().glob("*.groovy")), ids=lambda it: it.stem)
def test_a_script_says_which_qupath_it_is_for_and_each_name_of_ours_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "0.5.1, 0.6 and 0.7" in text
    code = re.sub(r"^@Field static final .*$|^final TITLE = .*$", "", text, flags=re.MULTILINE)
    # Sentences begin with "qprd: " too.
    assert not re.search(r"'qprd: [^']*'(?! ?\+| *\))", code)
    assert not re.search(r"'qprd tile'|\"qprd: [a-z ]+\"", code)


@pytest.mark.qupath
@pytest.mark.slow
def test_exported_annotations_are_qupaths_own(project: Path, shared_data: Path) -> None:
    before = {p: p.read_bytes() for p in (project.parent / "data").rglob("*") if p.is_file()}
    log = run(script_folder() / "export_annotations.groovy", project)
    with ExchangeProject(project) as opened:
        for entry in opened.entries():
            assert opened.annotation_source(entry).file is not None, log
            expected = read_annotations(
                shared_data / f"qupath/colon/annotations/{entry.name}.geojson"
            )
            assert opened.annotations(entry) == tuple(expected)
    assert {p: p.read_bytes() for p in before} == before


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


#: What a person does to the outlines of contours of ours: moves one, splits one, merges two.
EDITS = """
def plane = ImagePlane.getDefaultPlane()
def contour = { number, x, parts ->
    def squares = (0..<parts).collect { ROIs.createRectangleROI(x + 200 * it, 0, 100, 100, plane) }
    def roi = RoiTools.union(squares)
    def made = PathObjects.createAnnotationObject(roi, PathClass.fromString('Tumor: qprd'))
    made.setID(UUID.fromString(String.format('71707264-0000-4000-8000-%012d', number)))
    made.measurements.put('qprd: mean score', 2d)
    made
}
def own = [contour(1, 0, 1), contour(2, 1000, 2), contour(3, 2000, 1), contour(4, 3000, 1)]
addObjects(own)
own[0].setROI(ROIs.createRectangleROI(0, 0, 150, 100, plane))
own[0].setPathClass(PathClass.fromString('Tumor'))
resetSelection()
selectObjects(own[1])
runPlugin('qupath.lib.plugins.objects.SplitAnnotationsPlugin', '{}')
resetSelection()
selectObjects(own[2], own[3])
mergeSelectedAnnotations()
"""


@pytest.mark.qupath
@pytest.mark.slow
def test_what_began_as_ours_is_known_by_its_id_when_its_outline_was_edited(
    project: Path, tmp_path: Path
) -> None:
    edits = tmp_path / "edits.groovy"
    edits.write_text(EDITS)
    log = run(edits, project, "--save")
    found = dump(project, tmp_path / "edited")["1"].values()
    named = {
        key: [item for item in found if item["id"].startswith(ours.OWN_ID) == known]
        for key, known in (("ours", True), ("users", False))
    }
    (edited,) = named["ours"]
    assert edited["id"].endswith("0001"), log
    assert (edited["class"], edited["measurements"]) == ("Tumor", {})
    assert ours.was_predicted(edited["id"], edited["name"], edited["measurements"])
    # Pieces and a union are new objects, without our measurements: a person's.
    others = [item for item in named["users"] if item["class"] == "Tumor: qprd"]
    assert len(others) == 3
    assert not any(is_own(item) for item in found)


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
def test_an_annotation_that_qupath_cannot_export_costs_no_other(
    project: Path, qupath: object
) -> None:
    edit_in_qupath(project, "1", draw_broken_outlines)
    log = run(script_folder() / "export_annotations.groovy", project)
    assert "QuPath cannot export two equal corners, one corner, no number" in log
    with ExchangeProject(project) as exchange:
        first, second = exchange.entries()
        found = exchange.annotations(first)
        assert len(exchange.annotations(second)) == 2
    with PaquoProject(project) as paquo:
        assert sorted(found, key=lambda one: one.id) == sorted(
            paquo.annotations(first), key=lambda one: one.id
        )
    assert {one.name for one in found if one.fault} == BROKEN_OUTLINES.keys()
    assert len(found) == 3 + len(BROKEN_OUTLINES)


@pytest.mark.qupath
@pytest.mark.slow
def test_imported_annotations_come_into_qupath_once_and_no_export_loses_them(
    project: Path,
) -> None:
    export, bring_in = (script_folder() / name for name in SCRIPTS[:2])
    regions = (
        ("two", MultiPolygon([box(0, 0, 50, 50), box(60, 0, 90, 50)])),
        ("donut", box(100, 100, 900.25, 900).difference(box(300, 300, 600, 600))),
    )
    imported = AnnotationImport("a.xml", PathClass("Metastasis", (9, 8, 7)), regions)
    run(export, project)
    with ExchangeProject(project) as opened:
        first, second = opened.entries()
        file = opened.annotation_source(first).file
        assert file is not None
        exported = json.loads(file.read_text())["qprd"]
        assert exported == {
            key: value for key, value in image_record(first).items() if key != "fingerprint"
        }
        assert opened.import_annotations(first, imported).added == 2
        before = opened.annotations(first)
        others = opened.annotations(second)
    written = file.read_bytes()

    log = run(export, project)
    assert "lacks the 2 annotations" in log
    assert file.read_bytes() == written

    log = run(bring_in, project, "--save")
    assert "2 annotations into colon_1.tif, 0 were there already" in log
    assert "nothing was imported for colon_2.tif" in log
    log = run(bring_in, project, "--save")
    assert "0 annotations into colon_1.tif, 2 were there already" in log

    run(export, project)
    assert file.read_bytes() != written
    with ExchangeProject(project) as opened:
        first, second = opened.entries()
        after = {one.id: one for one in opened.annotations(first)}
        assert len(after) == 5
        for one in before:
            assert (after[one.id].class_name, after[one.id].name) == (one.class_name, one.name)
            assert same_outline(one.geometry, after[one.id].geometry)
        assert opened.annotations(second) == others
        again = opened.import_annotations(first, imported)
        assert (again.added, again.unchanged, again.edited) == (0, 2, 0)
        assert "Metastasis" in [known.name for known in opened.classes()]


@pytest.mark.qupath
@pytest.mark.slow
def test_files_of_another_image_come_into_none(project: Path) -> None:
    regions = (("one", box(0, 0, 50, 50)),)
    imported = AnnotationImport("a.xml", PathClass("Metastasis", (9, 8, 7)), regions)
    run(script_folder() / SCRIPTS[0], project)
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
    for script, result in zip(
        SCRIPTS[1:], ("1 annotation into b", "1 contour into b"), strict=True
    ):
        log = run(script_folder() / script, project, "--save")
        assert (
            "is of the image colon_2.tif, and this image is colon_1.tif: nothing was changed" in log
        )
        assert result in log


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
