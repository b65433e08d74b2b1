"""Taking back a write into QuPath's own data, with and without a person's work since."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import shapely

import qprd
from qprd.jobs.undo import UndoSummary
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.project import AnnotationImport, PathClass
from tests.helpers.qupath_work import (
    edit_in_qupath,
    file_bytes,
    make_predictions,
    project_json,
    snapshot,
)
from tests.helpers.small_project import files_of

pytestmark = [pytest.mark.qupath, pytest.mark.usefixtures("qupath")]


def write(project: Path, bundle: str) -> None:
    with PaquoProject(project) as opened, opened.writing("write-back", opened.entries()):
        for entry in opened.entries():
            opened.write_predictions(entry, make_predictions(entry.id, bundle=bundle))


def undo(project: Path, kind: Any = PaquoProject, **options: bool) -> UndoSummary:
    with kind(project) as opened:
        return qprd.undo(opened, progress=SilentProgress(), **options)


def draw_and_accept(hierarchy: Any) -> None:
    """A person draws an annotation and accepts a contour."""
    from paquo.java import JClass, PathClass, PathObjects, ROIs

    plane = JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    drawn = PathObjects.createAnnotationObject(ROIs.createRectangleROI(7.0, 8.0, 90.0, 80.0, plane))
    drawn.setName("drawn after the write-back")
    hierarchy.addObject(drawn)
    for item in hierarchy.getAnnotationObjects():
        if str(item.getName()) == "qprd lesion 0":
            item.setPathClass(PathClass.fromString("Tumor"))


def by_person(objects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        key: item
        for key, item in objects.items()
        if item["name"] in ("drawn after the write-back", "qprd lesion 0")
        and item["class"] != "Tumor: qprd"
    }


@pytest.mark.parametrize("kind", [PaquoProject, ExchangeProject])
def test_files_that_nobody_changed_become_what_they_were_byte_for_byte(
    worked_project: Path, kind: Any
) -> None:
    before = files_of(worked_project.parent)
    write(worked_project, "first")
    between = files_of(worked_project.parent)
    write(worked_project, "second")
    dry = file_bytes(worked_project)
    would = undo(worked_project, kind, dry_run=True)
    assert file_bytes(worked_project) == dry
    done = undo(worked_project, kind)
    assert files_of(worked_project.parent) == between
    assert set(would.commands[0].files) == set(done.commands[0].files)
    assert undo(worked_project, kind).commands[0].restored == ("colon_1.tif", "colon_2.tif")
    assert files_of(worked_project.parent) == before


def test_what_a_person_did_since_stays_and_the_earlier_objects_come_back(
    worked_project: Path,
) -> None:
    untouched = snapshot(worked_project, "2")
    write(worked_project, "first")
    first = snapshot(worked_project, "2")
    data = worked_project.parent / "data" / "1" / "data.qpdata"
    other = data.read_bytes()
    metadata = [image["metadata"] for image in project_json(worked_project)["images"]]
    write(worked_project, "second")
    edit_in_qupath(worked_project, "2", draw_and_accept)
    persons = by_person(snapshot(worked_project, "2"))
    assert len(persons) == 2
    summary = undo(worked_project)
    assert (summary.commands[0].restored, summary.commands[0].own_only) == (
        ("colon_1.tif",),
        ("colon_2.tif",),
    )
    assert snapshot(worked_project, "2") == {**first, **persons}
    assert data.read_bytes() == other
    assert [image["metadata"] for image in project_json(worked_project)["images"]] == metadata
    assert undo(worked_project).commands[0].own_only == ("colon_2.tif",)
    assert snapshot(worked_project, "2") == {**untouched, **persons}
    assert [set(image["metadata"]) for image in project_json(worked_project)["images"]] == [
        {"split"},
        {"split"},
    ]


def test_metadata_that_a_person_set_since_stay(worked_project: Path) -> None:
    before = project_json(worked_project)
    write(worked_project, "first")
    changed = project_json(worked_project)
    changed["images"][0]["metadata"]["split"] = "test"
    worked_project.write_text(json.dumps(changed), encoding="utf-8")
    assert undo(worked_project).commands[0].restored == ("colon_1.tif", "colon_2.tif")
    before["images"][0]["metadata"]["split"] = "test"
    assert project_json(worked_project) == before


@pytest.mark.parametrize("kind", [PaquoProject, ExchangeProject])
def test_an_image_that_cannot_go_back_is_left_alone_and_named(
    worked_project: Path, kind: Any
) -> None:
    before = files_of(worked_project.parent)
    write(worked_project, "first")
    edit_in_qupath(worked_project, "2", draw_and_accept)
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    if kind is PaquoProject:
        data.write_bytes(data.read_bytes()[:5000])
    left = data.read_bytes()
    summary = undo(worked_project, kind)
    assert summary.failed == 1
    (problem,) = summary.commands[0].problems
    assert problem.startswith("colon_2.tif: ")
    assert ("cannot be read" if kind is PaquoProject else "--backend paquo") in problem
    assert data.read_bytes() == left
    after = files_of(worked_project.parent)
    assert after["data/1/data.qpdata"] == before["data/1/data.qpdata"]
    metadata = [image["metadata"] for image in project_json(worked_project)["images"]]
    assert set(metadata[0]) == {"split"}
    assert "qprd: bundle" in metadata[1]


def test_data_that_qprd_made_are_removed_again(colon_project: Path) -> None:
    shutil.rmtree(colon_project.parent / "data" / "2")
    before = files_of(colon_project.parent)
    write(colon_project, "first")
    assert (colon_project.parent / "data" / "2" / "data.qpdata").exists()
    undo(colon_project)
    assert files_of(colon_project.parent) == before
    assert not (colon_project.parent / "data" / "2").exists()


def test_what_a_person_did_before_the_repetition_of_a_broken_off_write_back_stays(
    worked_project: Path,
) -> None:
    untouched = snapshot(worked_project, "2")
    with (
        PaquoProject(worked_project) as opened,
        contextlib.suppress(KeyboardInterrupt),
        opened.writing("write-back", opened.entries()),
    ):
        opened.write_predictions(opened.entries()[1], make_predictions("2", bundle="first"))
        raise KeyboardInterrupt
    edit_in_qupath(worked_project, "2", draw_and_accept)
    changed = project_json(worked_project)
    changed["images"][0]["metadata"]["split"] = "test"
    worked_project.write_text(json.dumps(changed), encoding="utf-8")
    persons = by_person(snapshot(worked_project, "2"))
    write(worked_project, "second")
    summary = undo(worked_project)
    assert summary.left == 0
    assert summary.commands[0].own_only == ("colon_2.tif",)
    assert snapshot(worked_project, "2") == {**untouched, **persons}
    metadata = [image["metadata"] for image in project_json(worked_project)["images"]]
    assert [(set(of), of["split"]) for of in metadata] == [({"split"}, "test"), ({"split"}, "val")]


def test_what_could_not_go_back_goes_back_once_that_is_mended(worked_project: Path) -> None:
    before = files_of(worked_project.parent)
    write(worked_project, "first")
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    whole = data.read_bytes()
    data.write_bytes(whole[:5000])
    assert undo(worked_project).failed == 1
    data.write_bytes(whole)
    assert undo(worked_project).failed == 0
    after = files_of(worked_project.parent)
    assert {name for name in after if after[name] != before.get(name)} <= {
        "project.qpproj",
        "classifiers/classes.json",
    }
    assert [set(image["metadata"]) for image in project_json(worked_project)["images"]] == [
        {"split"},
        {"split"},
    ]


def test_an_import_goes_back_and_what_was_drawn_since_stays(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    files = files_of(worked_project.parent)
    regions = (("a", shapely.box(0, 0, 50, 60)), ("b", shapely.box(100, 0, 150, 60)))
    imported = AnnotationImport("a.xml", PathClass("Tumor", (200, 0, 0)), regions)

    def import_both() -> None:
        with PaquoProject(worked_project) as opened, opened.writing("import-asap"):
            assert opened.import_annotations(opened.entries()[1], imported).added == 2

    import_both()
    undo(worked_project)
    assert files_of(worked_project.parent) == files
    import_both()
    edit_in_qupath(worked_project, "2", draw_and_accept)
    persons = by_person(snapshot(worked_project, "2"))
    assert undo(worked_project).commands[0].own_only == ("colon_2.tif",)
    assert snapshot(worked_project, "2") == {**before, **persons}


def test_a_dry_run_writes_and_checks_elsewhere(worked_project: Path) -> None:
    before = file_bytes(worked_project)
    with PaquoProject(worked_project) as opened:
        entry = opened.entries()[1]
        with opened.writing("write-back", dry_run=True):
            report = opened.write_predictions(entry, make_predictions("2"))
        assert file_bytes(worked_project) == before
        assert not (worked_project.parent / "qprd").exists()
        done = opened.write_predictions(entry, make_predictions("2"))
    assert report == done
    assert len(done.files) == 4


def test_an_unfinished_save_of_qupath_that_begins_meanwhile_stops_the_write(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qprd.errors import QprdError
    from qprd.qupath.entrydata import EntryData

    original = EntryData.write
    backup = worked_project.parent / "data" / "2" / "data.qpdata.bkp"

    def saving(self: EntryData, path: Path) -> None:
        original(self, path)
        backup.write_bytes(b"QuPath has begun to save")

    monkeypatch.setattr(EntryData, "write", saving)
    before = file_bytes(worked_project)
    with (
        PaquoProject(worked_project) as opened,
        pytest.raises(QprdError, match="changed while qprd was writing"),
    ):
        opened.write_predictions(opened.entries()[1], make_predictions("2"))
    backup.unlink()
    assert file_bytes(worked_project) == before
