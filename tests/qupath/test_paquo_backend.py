"""Writing through a real QuPath: ours in, and everything of the user as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qprd
from qprd.predictions import MEAN_SCORE, Predictions
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.pathclasses import argb_from_color, read_classes
from tests.helpers.qupath_work import (
    edit_in_qupath,
    file_bytes,
    is_own,
    make_predictions,
    of_others,
    of_ours,
    project_json,
    snapshot,
    write,
)

pytestmark = [pytest.mark.qupath, pytest.mark.usefixtures("qupath")]


def test_writing_leaves_everything_of_the_user_as_it_was(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    assert len(before) == 2007
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    ours = {tile.id for tile in predictions.tiles} | {a.id for a in predictions.annotations}
    assert set(of_ours(after)) == ours


def test_what_is_stored_is_what_was_meant(worked_project: Path) -> None:
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    stored = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as reopened:
        read = reopened.read_predictions(reopened.entries()[1])
    assert (read.contour_class, read.contour_color) == ("Tumor: qprd", (255, 140, 0))
    assert read.metadata == predictions.metadata
    for tile, expected in zip(read.tiles, predictions.tiles, strict=True):
        assert tile.id == expected.id
        assert np.allclose((tile.x, tile.y), (expected.x, expected.y), atol=0.0051, rtol=0)
        assert (tile.width, tile.height) == (expected.width, expected.height)
        assert tile.measurements == pytest.approx(expected.measurements, rel=1e-6)
        assert stored[tile.id]["parent"] is None
        assert stored[tile.id]["class"] is None
    assert {stored[region.id]["class"] for region in read.review} == {"Review: qprd"}
    for contour, meant in zip(read.annotations, predictions.annotations, strict=True):
        assert type(contour) is type(meant)
        assert (contour.id, contour.name) == (meant.id, meant.name)
        assert contour.polygon.symmetric_difference(meant.polygon).area < 0.01 * 1000
        assert len(contour.polygon.interiors) == len(meant.polygon.interiors)
        assert contour.measurements == pytest.approx(meant.measurements, rel=1e-6)
        assert stored[contour.id]["parent"] is None


def test_a_new_process_finds_what_was_written(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    script = (
        "import json, pathlib, sys\n"
        "from tests.helpers import qupath_work as w\n"
        "from qprd.qupath.java import start_qupath\n"
        "start_qupath()\n"
        "print(json.dumps(w.snapshot(pathlib.Path(sys.argv[1]), '2')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, worked_project],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    after = json.loads(done.stdout)
    assert of_others(after) == before
    assert len(of_ours(after)) == 54
    assert "WARN" not in done.stderr


def test_only_the_entrys_files_and_the_projects_change(worked_project: Path) -> None:
    before = file_bytes(worked_project)
    write(worked_project, 1, make_predictions("2"))
    after = file_bytes(worked_project)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("qprd/backups/")} == {
        "data/2/data.qpdata",
        "data/2/summary.json",
        "project.qpproj",
        "classifiers/classes.json",
    }


def test_the_project_file_gains_our_metadata_and_nothing_else(worked_project: Path) -> None:
    expected = project_json(worked_project)
    expected["images"][1]["metadata"] |= {"qprd: bundle": "bundle-1", "qprd: slide score": "3.25"}
    write(worked_project, 1, make_predictions("2"))
    assert project_json(worked_project) == expected


def test_workflow_image_type_stains_and_server_stay(worked_project: Path) -> None:
    from paquo._logging import redirect
    from paquo.java import GsonTools, JClass, PathIO

    path = JClass("java.io.File")(
        str(worked_project.parent / "data" / "2" / "data.qpdata")
    ).toPath()

    def state() -> list[str]:
        with redirect():
            server = PathIO.extractServerBuilder(path)
            data = PathIO.readImageData(path, server)
            return [
                str(GsonTools.getInstance().toJson(server)),
                str(data.getHistoryWorkflow().createScript()),
                str(data.getImageType()),
                str(data.getColorDeconvolutionStains()),
                str(data.getProperties()),
            ]

    before = state()
    write(worked_project, 1, make_predictions("2"))
    write(worked_project, 1, make_predictions("2", seed=1))
    assert state() == before
    assert "file:///data/colon/slides/colon_2.tif" in before[0]
    assert "setImageType" in before[1]


def test_a_second_run_replaces_the_first(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        first = project.write_predictions(entry, make_predictions("2", 80))
        second = project.write_predictions(entry, make_predictions("2", 30, bundle="b2", seed=5))
    assert (first.replaced, second.replaced) == (0, 84)
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    assert len(of_ours(after)) == 34
    assert project_json(worked_project)["images"][1]["metadata"]["qprd: bundle"] == "b2"


def test_the_same_predictions_again_change_no_object(worked_project: Path) -> None:
    write(worked_project, 1, make_predictions("2"))
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    assert snapshot(worked_project, "2") == before


def test_empty_predictions_remove_ours(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    write(worked_project, 1, Predictions(tiles=(), contours=()))
    assert snapshot(worked_project, "2") == before
    assert project_json(worked_project)["images"][1]["metadata"] == {"split": "val"}


def test_an_accepted_contour_survives_with_its_id(worked_project: Path) -> None:
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    accepted = predictions.contours[0].id

    def accept(hierarchy: Any) -> None:
        from paquo.java import PathClass

        (contour,) = [
            item for item in hierarchy.getAnnotationObjects() if str(item.getID()) == accepted
        ]
        contour.setPathClass(PathClass.fromString("Tumor"))

    edit_in_qupath(worked_project, "2", accept)
    before = snapshot(worked_project, "2")
    assert not is_own(before[accepted])
    write(worked_project, 1, predictions)
    after = snapshot(worked_project, "2")
    assert of_others(after) == of_others(before)
    assert after[accepted]["class"] == "Tumor"
    assert len(of_ours(after)) == 54
    write(worked_project, 1, predictions)
    assert snapshot(worked_project, "2") == after


def test_what_a_person_put_inside_our_contour_moves_to_its_next_ancestor(
    worked_project: Path,
) -> None:
    write(worked_project, 1, make_predictions("2"))

    def nest(hierarchy: Any) -> None:
        """As "Resolve hierarchy" does: outer > our contour > (inner, a tile of ours)."""
        annotations = {str(item.getName()): item for item in hierarchy.getAnnotationObjects()}
        contour = annotations["qprd lesion 0"]
        annotations["outer"].addChildObject(contour)
        contour.addChildObject(annotations["inner \u00b5 \u2620 'quoted'"])
        scored = [
            item for item in hierarchy.getTileObjects() if item.getMeasurementList().size() == 2
        ]
        contour.addChildObject(scored[0])

    edit_in_qupath(worked_project, "2", nest)
    nested = snapshot(worked_project, "2")
    inner = next(key for key, item in nested.items() if str(item["name"]).startswith("inner"))
    outer = next(key for key, item in nested.items() if item["name"] == "outer")
    assert nested[inner]["parent"] not in (None, outer)
    write(worked_project, 1, make_predictions("2", seed=3))
    after = snapshot(worked_project, "2")
    nested[inner]["parent"] = outer
    assert of_others(after) == of_others(nested)
    assert len(of_ours(after)) == 54


def test_a_slide_that_is_nowhere_does_not_stop_the_writing(worked_project: Path) -> None:
    (worked_project.parents[1] / "slides").unlink()
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        assert entry.source.path is None
        project.write_predictions(entry, make_predictions("2"))
    assert len(of_ours(snapshot(worked_project, "2"))) == 54


def test_an_image_that_was_never_saved_gets_predictions(colon_project: Path) -> None:
    shutil.rmtree(colon_project.parent / "data" / "2")
    write(colon_project, 1, make_predictions("2"))
    assert len(of_ours(snapshot(colon_project, "2"))) == 54
    summary = json.loads((colon_project.parent / "data" / "2" / "summary.json").read_text())
    assert summary["hierarchy"]["nObjects"] == 55
    assert summary["server"]["width"] == 2048


def test_summary_is_what_qupath_itself_would_write(worked_project: Path) -> None:
    path = worked_project.parent / "data" / "2" / "summary.json"
    write(worked_project, 1, make_predictions("2"))
    ours = json.loads(path.read_text(encoding="utf-8"))
    edit_in_qupath(worked_project, "2", lambda hierarchy: None)
    qupaths = json.loads(path.read_text(encoding="utf-8"))
    ours.pop("timestamp"), qupaths.pop("timestamp")
    assert ours == qupaths


def test_our_class_joins_the_projects_and_keeps_a_color_the_user_gave_it(
    worked_project: Path,
) -> None:
    with PaquoProject(worked_project) as project:
        before = [item for item in project.classes() if item.name != "Tumor: qprd"]
        project.write_predictions(project.entries()[1], make_predictions("2"))
    path = worked_project.parent / "classifiers" / "classes.json"
    classes = json.loads(path.read_text(encoding="utf-8"))
    names = [item["name"] for item in classes["pathClasses"]]
    assert names == ["Tumor", "Normal", "Ignore*", "Stroma", "Tumor: qprd", "Review: qprd"]
    classes["pathClasses"][-2]["color"] = -16711936
    path.write_text(json.dumps(classes), encoding="utf-8")
    with PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2", seed=2))
        found = {item.name: item.color for item in project.classes()}
    assert found["Tumor: qprd"] == (0, 255, 0)
    assert {item.name for item in before} <= set(found)


def test_a_region_that_a_person_judged_is_not_asked_about_again(worked_project: Path) -> None:
    predictions = make_predictions("2")
    first, second = predictions.review

    def judge(hierarchy: Any) -> None:
        from paquo.java import PathClass

        (region,) = (o for o in hierarchy.getAnnotationObjects() if str(o.getID()) == first.id)
        region.setPathClass(PathClass.fromString("Normal"))

    write(worked_project, 1, predictions)
    edit_in_qupath(worked_project, "2", judge)
    write(worked_project, 1, predictions)
    stored = snapshot(worked_project, "2")
    assert stored[first.id]["class"] == "Normal"
    asked = [key for key, item in stored.items() if item["class"] == "Review: qprd"]
    assert asked == [second.id]


def test_our_classes_leave_the_list_when_no_image_bears_them(worked_project: Path) -> None:
    nothing = Predictions(tiles=(), contours=())
    with PaquoProject(worked_project) as project:
        first, second = project.entries()
        listed = {item.name for item in read_classes(worked_project)}
        for entry in (first, second):
            project.write_predictions(entry, make_predictions(entry.id))
        project.write_predictions(second, nothing)
        both = {item.name for item in read_classes(worked_project)}
        project.write_predictions(first, nothing)
    assert both == listed | {"Tumor: qprd", "Review: qprd"}
    assert {item.name for item in read_classes(worked_project)} == listed


def test_far_away_coordinates_are_compared_as_precisely_as_qupath_stores_them(
    worked_project: Path,
) -> None:
    from shapely.affinity import translate

    near = make_predictions("2", 3)
    far = replace(
        near,
        contours=tuple(
            replace(item, polygon=translate(item.polygon, 190_000.37, 210_000.41))
            for item in near.contours
        ),
    )
    with PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], far)


@pytest.mark.slow
def test_a_hundred_thousand_tiles(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    predictions = make_predictions("2", 100_000)
    with PaquoProject(worked_project) as project:
        report = project.write_predictions(project.entries()[1], predictions)
        assert report.tiles == 100_000
        again = project.write_predictions(project.entries()[1], make_predictions("2", 10))
    assert again.replaced == 100_004
    assert of_others(snapshot(worked_project, "2")) == before


def test_what_a_person_drew_with_our_class_stays(worked_project: Path) -> None:
    # A class has one color in a whole process; whoever names it first chooses.
    ours = argb_from_color(make_predictions("2").contour_color)

    def draw(hierarchy: Any) -> None:
        from paquo.java import JClass, PathClass

        own_class = PathClass.fromString("Tumor: qprd", JClass("java.lang.Integer")(ours))
        for item in hierarchy.getAnnotationObjects():
            if str(item.getName()) == "outer":
                item.setPathClass(own_class)

    edit_in_qupath(worked_project, "2", draw)
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        for seed in (1, 2):
            project.write_predictions(entry, make_predictions("2", seed=seed))
        assert len(project.read_predictions(entry).contours) == 2
        assert sum(item.predicted for item in project.annotations(entry)) == 4
    assert of_others(snapshot(worked_project, "2")) == before


def test_metadata_whose_keys_only_resemble_ours_stay(worked_project: Path) -> None:
    changed = project_json(worked_project)
    changed["images"][1]["metadata"]["qprd-review by Anna"] = "half \ud83d"
    worked_project.write_text(json.dumps(changed), encoding="utf-8")
    write(worked_project, 1, make_predictions("2"))
    changed["images"][1]["metadata"] |= make_predictions("2").metadata
    assert project_json(worked_project) == changed


def _split(_earlier: Any) -> Any:
    """The outline of two squares."""
    from paquo.java import GeometryTools, WKBReader
    from shapely.geometry import MultiPolygon, box

    two = MultiPolygon([box(0, 0, 10, 10), box(20, 0, 30, 10)])
    return GeometryTools.geometryToROI(WKBReader().read(WKBReader.hexToBytes(two.wkb_hex)))


def _two_corners(_earlier: Any) -> Any:
    """An outline that QuPath keeps, and cannot export."""
    from paquo.java import ArrayList, JClass, ROIs

    points, point = ArrayList(), JClass("qupath.lib.geom.Point2")
    for place in (10.0, 20.0):
        points.add(point(place, place))
    plane = JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    return ROIs.createPolygonROI(points, plane)


def _redraw(hierarchy: Any, outline: Callable[[Any], Any], *, measured: bool = False) -> None:
    """Give a contour another outline, which QuPath takes the measurements from."""
    from paquo.java import String

    for item in hierarchy.getAnnotationObjects():
        if str(item.getName()) == "qprd lesion 0":
            item.setROI(outline(item.getROI()))
            if measured:
                item.getMeasurementList().put(String(MEAN_SCORE), 1.0)


def test_a_contour_that_a_person_redrew_is_theirs(worked_project: Path) -> None:
    """QuPath drops the measurements of an object whose outline changes."""
    write(worked_project, 1, make_predictions("2"))
    edit_in_qupath(worked_project, "2", lambda h: _redraw(h, _split))
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        assert len(project.read_predictions(entry).contours) == 1
        assert project.write_predictions(entry, make_predictions("2")).replaced == 53
        assert len(project.read_predictions(entry).contours) == 2
    assert of_others(snapshot(worked_project, "2")) == of_others(before)


@pytest.mark.parametrize("outline", [_split, _two_corners])
def test_a_contour_that_is_no_polygon_any_more_is_named_and_nothing_else_is_lost(
    worked_project: Path, outline: Callable[[Any], Any]
) -> None:
    write(worked_project, 1, make_predictions("2"))
    edit_in_qupath(worked_project, "2", lambda h: _redraw(h, outline, measured=True))
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        read = project.read_predictions(entry)
        assert (len(read.tiles), len(read.annotations), len(read.unusable)) == (50, 3, 1)
        assert qprd.remove(project, images=entry.name, progress=False).removed == {entry.name: 54}
        assert snapshot(worked_project, "2") == of_others(before)


def test_a_contour_that_was_no_polygon_does_not_come_back_and_is_named(
    worked_project: Path,
) -> None:
    write(worked_project, 1, make_predictions("2"))
    edit_in_qupath(worked_project, "2", lambda h: _redraw(h, _two_corners, measured=True))
    earlier = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2", bundle="second"))
    edit_in_qupath(worked_project, "2", lambda h: next(iter(h.getCellObjects())).setName("mine"))
    with PaquoProject(worked_project) as project:
        undone = qprd.undo(project, progress=False)
    assert (undone.failed, undone.commands[0].own_only) == (0, ("colon_2.tif",))
    (note,) = [note for note in undone.notes if "does not come back" in note]
    assert note.startswith("colon_2.tif")
    back = of_ours(snapshot(worked_project, "2"))
    assert earlier.keys() - back.keys() - of_others(earlier).keys() == {
        make_predictions("2").contours[0].id
    }
