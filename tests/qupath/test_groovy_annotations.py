"""Annotations that scripts bring out of a real QuPath and into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely.geometry import MultiPolygon, box

from qprd import predictions as ours
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.geojson import read_annotations
from qprd.qupath.image_record import image_record
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.precision import same_outline
from qprd.qupath.project import AnnotationImport, PathClass
from qprd.qupath.scripts import script_folder
from tests.helpers.qupath_work import BROKEN_OUTLINES, draw_broken_outlines, edit_in_qupath
from tests.helpers.script_session import dump, is_own, launcher, lead_to_slides, run


@pytest.fixture
def project(colon_project: Path, shared_data: Path) -> Path:
    """The colon project with its slides; skips where no QuPath runs scripts."""
    launcher()
    return lead_to_slides(colon_project, shared_data)


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
    export, bring_in = (
        script_folder() / f"{name}.groovy" for name in ("export_annotations", "import_annotations")
    )
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
