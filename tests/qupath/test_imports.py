"""Annotations of other programs, into both kinds of project."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.qupath import exchange, paquo_backend
from qprd.qupath.entrydata import EntryData
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.geojson import own_member_of, read_annotations, read_objects
from qprd.qupath.imports import difference, plan_import, with_imported
from qprd.qupath.project import Annotation, AnnotationImport, ImportReport, PathClass
from tests.helpers.qupath_work import edit_in_qupath, file_bytes, make_predictions, snapshot

DONUT = shapely.box(100, 100, 900, 900).difference(shapely.box(300, 300, 600, 600))
TWO = shapely.MultiPolygon([shapely.box(0, 0, 50, 50), shapely.box(60, 0, 90, 50)])
BEND = shapely.Polygon([(0.004, 0), (1000, 0), (1500, 0), (1000, 1000.255), (0, 1000)])
#: Beyond 131,072 px QuPath's single precision is coarser than its two decimals.
FAR = shapely.affinity.translate(BEND, 200_000.13, 150_000.37)


def imported(
    *regions: tuple[str, Any], source: str = "a.xml", name: str = "Tumor"
) -> AnnotationImport:
    return AnnotationImport(source, PathClass(name, (1, 2, 3)), regions)


ALL = imported(("Donut", DONUT), ("two", TWO), ("", BEND), ("far", FAR))


# --- the plan


def test_ids_are_always_the_same_and_hang_on_what_they_should() -> None:
    def ids(entry: str = "1", **changes: Any) -> list[str]:
        return [one.id for one in plan_import(entry, replace(ALL, **changes), ()).added]

    assert ids() == ids()
    assert len(set(ids())) == 4
    others = [
        ids("2"),
        ids(source="b.xml"),
        ids(path_class=PathClass("Other")),
        ids(areas=tuple(("name", region) for _, region in ALL.areas)),
        ids(areas=tuple((n, shapely.affinity.translate(r, 0.5, 0)) for n, r in ALL.areas)),
    ]
    assert all(set(ids()).isdisjoint(other) for other in others)
    # A color is none of the user's work.
    assert ids(path_class=PathClass("Tumor")) == ids()


def test_the_same_region_twice_is_one() -> None:
    assert len(plan_import("1", imported(("a", DONUT), ("a", DONUT)), ()).added) == 1


def test_a_second_import_finds_its_own() -> None:
    first = plan_import("1", ALL, ())
    again = plan_import("1", ALL, first.added)
    assert (again.added, again.outdated, again.unchanged, again.edited) == ((), (), 4, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "mine"},
        {"name": None},
        {"class_name": "Normal"},
        {"class_name": None},
        {"geometry": shapely.box(1, 2, 3, 4)},
        {"geometry": shapely.Point(1, 2)},
        {"geometry": shapely.Polygon([(1, 1)] * 4)},
        {"geometry": shapely.GeometryCollection([DONUT, shapely.Point(1, 2)])},
    ],
)
def test_what_a_person_changed_is_the_persons(change: dict[str, Any]) -> None:
    first = plan_import("1", ALL, ()).added
    edited = [replace(first[0], **change), *first[1:]]
    again = plan_import("1", ALL, edited)
    assert (again.added, again.outdated, again.unchanged, again.edited) == ((), (), 3, 1)
    # The source lost all of them: only what was not touched goes.
    other = plan_import("1", imported(("new", DONUT)), edited)
    assert set(other.outdated) == {one.id for one in first[1:]}


def test_a_locked_annotation_is_never_taken_out() -> None:
    first = [replace(one, locked=True) for one in plan_import("1", ALL, ()).added]
    other = plan_import("1", imported(("new", DONUT)), first)
    assert other.outdated == ()


def test_copies_with_one_id_are_never_taken_out() -> None:
    (first,) = plan_import("1", imported(("a", DONUT)), ()).added
    copies = [first, replace(first, name="copy")]
    assert plan_import("1", imported(("new", TWO)), copies).outdated == ()


def test_another_source_and_the_users_own_are_left_alone() -> None:
    first = plan_import("1", ALL, ()).added
    drawn = Annotation("1b4e28ba-2fa1-41d2-883f-0016d3cca427", DONUT, "Tumor", "Donut")
    other = plan_import("1", replace(ALL, source="b.xml"), [*first, drawn])
    assert other.outdated == ()
    assert len(other.added) == 4


def test_another_class_replaces_the_first() -> None:
    first = plan_import("1", ALL, ()).added
    other = plan_import("1", replace(ALL, path_class=PathClass("Metastasis")), first)
    assert set(other.outdated) == {one.id for one in first}
    assert len(other.added) == 4


@pytest.mark.parametrize("name", ["", " ", ": ", "Tumor: qprd", "qprd"])
def test_classes_that_cannot_be_the_users_are_refused(name: str) -> None:
    with pytest.raises(QprdError, match="class"):
        plan_import("1", imported(("a", DONUT), name=name), ())


def test_a_region_without_area_is_refused() -> None:
    with pytest.raises(QprdError, match="no area"):
        plan_import("1", imported(("a", shapely.box(0, 0, 1e-4, 1e-4))), ())


corner = st.tuples(st.integers(0, 400_000), st.integers(0, 400_000))


@settings(max_examples=50)
@given(st.lists(corner, min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_ids_survive_what_qupath_does_to_an_outline(
    corners: list[tuple[float, float]], random: Random
) -> None:
    """Single precision, another first vertex or direction, vertices on a straight line less."""
    outline = shapely.make_valid(shapely.Polygon([(x / 7, y / 7) for x, y in corners]))
    parts = [p for p in shapely.get_parts(outline) if p.geom_type == "Polygon" and p.area > 1]
    if not parts:
        return
    first = plan_import("1", imported(("a", parts[0])), ()).added
    ring = shapely.get_coordinates(first[0].geometry.exterior)[:-1]
    ring = np.roll(ring, random.randrange(len(ring)), axis=0).astype(np.float32)
    if random.random() < 0.5:
        ring = ring[::-1]
    holes = [hole.coords for hole in first[0].geometry.interiors]
    stored = shapely.Polygon(np.round(ring.astype(float), 2), holes)
    again = plan_import("1", imported(("a", parts[0])), [replace(first[0], geometry=stored)])
    assert again.unchanged == 1


def test_vertices_on_a_straight_line_do_not_count() -> None:
    (first,) = plan_import("1", imported(("a", BEND)), ()).added
    fewer = shapely.Polygon([p for p in first.geometry.exterior.coords[:-1] if p != (1000, 0)])
    assert len(fewer.exterior.coords) == len(first.geometry.exterior.coords) - 1
    assert plan_import("1", imported(("a", BEND)), [replace(first, geometry=fewer)]).unchanged == 1


def test_every_difference_is_said() -> None:
    added = plan_import("1", ALL, ()).added
    assert difference(added, added[::-1]) is None
    for change, said in (
        ({"id": "other"}, "is missing"),
        ({"name": "other"}, "class, name or lock"),
        ({"class_name": "Other"}, "class, name or lock"),
        ({"locked": True}, "class, name or lock"),
        ({"geometry": TWO}, "outline"),
    ):
        assert said in str(difference(added, [replace(added[0], **change), *added[1:]]))


# --- the exchange file


@pytest.mark.parametrize(
    "root",
    [
        None,
        [],
        {"type": "FeatureCollection", "features": [], "qprd": {"entry": "1"}, "crs": {"x": 1}},
        [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}],
        {"type": "Feature", "id": "x", "geometry": {"type": "Point", "coordinates": [1, 2]}},
        {"type": "Point", "coordinates": [1, 2]},
    ],
)
def test_whatever_kind_of_geojson_there_was_stays_in_the_file(root: object) -> None:
    before = [] if root is None else read_objects(json.dumps(root))
    plan = plan_import("1", ALL, ())
    text = with_imported(root, plan, {"entry": "1"})
    objects = read_objects(text)
    assert objects[: len(before)] == before
    assert [one.id for one in objects[len(before) :]] == [one.id for one in plan.added]
    written = json.loads(text)
    assert own_member_of(written)["imported"] == [one.id for one in plan.added]
    if isinstance(root, dict) and "crs" in root:
        assert written["crs"] == {"x": 1}


# --- both kinds of project


@pytest.fixture(params=["exchange", pytest.param("paquo", marks=pytest.mark.qupath)])
def opened(
    request: pytest.FixtureRequest, colon_project: Path, shared_data: Path
) -> Callable[[], ExchangeProject | paquo_backend.PaquoProject]:
    """Opens the colon project with its three annotations on the first image."""
    if request.param == "paquo":
        return lambda: paquo_backend.PaquoProject(colon_project)
    folder = colon_project.parent / "qprd" / "annotations"
    folder.mkdir(parents=True)
    for number in (1, 2):
        exported = shared_data / "qupath" / "colon" / "annotations" / f"colon_{number}.tif.geojson"
        shutil.copyfile(exported, folder / f"{number}.geojson")
    return lambda: ExchangeProject(colon_project)


def run(opened: Any, what: AnnotationImport) -> tuple[ImportReport, dict[str, Annotation]]:
    with opened() as project:
        entry = project.entries()[0]
        report = project.import_annotations(entry, what)
        assert report.where.is_file()
        return report, {one.id: one for one in project.annotations(entry)}


def test_what_is_imported_is_there_and_the_rest_as_it_was(opened: Any) -> None:
    with opened() as project:
        first, second = project.entries()
        before = {one.id: one for one in project.annotations(first)}
        others = project.annotations(second)
        classes = [known.name for known in project.classes()]
    report, after = run(opened, ALL)
    assert (report.added, report.unchanged, report.edited, report.removed) == (4, 0, 0, 0)
    assert {key: after[key] for key in before} == before
    added = [after[key] for key in after if key not in before]
    assert difference(plan_import("1", ALL, ()).added, added) is None
    assert not any(one.predicted or one.locked for one in added)
    with opened() as project:
        assert project.annotations(project.entries()[1]) == others
        assert [known.name for known in project.classes()] == classes


def test_importing_again_changes_no_byte(opened: Any, colon_project: Path) -> None:
    run(opened, ALL)
    before = file_bytes(colon_project)
    report, _ = run(opened, ALL)
    assert (report.added, report.unchanged, report.edited, report.removed) == (0, 4, 0, 0)
    assert file_bytes(colon_project) == before


def test_importing_a_changed_source_replaces_and_keeps_what_stayed(opened: Any) -> None:
    _, first = run(opened, ALL)
    report, second = run(opened, imported(("Donut", DONUT), ("new", shapely.box(5, 5, 80, 80))))
    assert (report.added, report.unchanged, report.edited, report.removed) == (1, 1, 0, 3)
    assert len(second) == len(first) - 2
    report, third = run(opened, imported(("x", TWO), source="b.xml", name="Tumor: sub"))
    assert (report.added, report.removed) == (1, 0)
    assert {key: third[key] for key in second} == second
    (new,) = (third[key] for key in third if key not in second)
    assert new.class_name == "Tumor: sub"


def test_an_entry_of_another_project_is_refused(opened: Any, colon_project: Path) -> None:
    before = file_bytes(colon_project)
    with opened() as project, pytest.raises(QprdError, match="no image with id"):
        project.import_annotations(replace(project.entries()[0], id="../1"), ALL)
    assert file_bytes(colon_project) == before


# --- exchange only


def test_an_image_that_was_not_exported_is_refused(colon_project: Path, shared_data: Path) -> None:
    """A file with ours alone would pass for an export of all that QuPath has."""
    before = file_bytes(colon_project)
    project = ExchangeProject(colon_project)
    with pytest.raises(QprdError, match="3 annotations in QuPath, none exported"):
        project.import_annotations(project.entries()[0], ALL)
    (colon_project.parent / "data" / "1" / "summary.json").unlink()
    with pytest.raises(QprdError, match="no annotations exported"):
        project.import_annotations(project.entries()[0], ALL)
    folder = shared_data / "qupath" / "colon" / "annotations"
    given = ExchangeProject(colon_project, annotations=folder)
    with pytest.raises(QprdError, match="--annotations"):
        given.import_annotations(given.entries()[0], ALL)
    assert file_bytes(colon_project).keys() == before.keys() - {"data/1/summary.json"}
    # An image that QuPath never saved has none to be exported.
    shutil.rmtree(colon_project.parent / "data" / "1")
    assert project.import_annotations(project.entries()[0], ALL).added == 4


@pytest.mark.parametrize("opened", ["exchange"], indirect=True)
def test_an_outdated_export_is_refused(opened: Any, colon_project: Path) -> None:
    data = colon_project.parent / "data" / "1" / "data.qpdata"
    exported = colon_project.parent / "qprd" / "annotations" / "1.geojson"
    os.utime(exported, ns=(0, data.stat().st_mtime_ns - 1))
    before = file_bytes(colon_project)
    with pytest.raises(QprdError, match="exported before QuPath last saved"):
        run(opened, ALL)
    assert file_bytes(colon_project) == before


@pytest.mark.parametrize("opened", ["exchange"], indirect=True)
def test_a_difference_keeps_the_file(
    opened: Any, colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file_bytes(colon_project)
    read = read_annotations
    for change in (
        lambda found: found[1:],
        lambda found: found[:-1],
        lambda found: [replace(found[0], name="other"), *found[1:]],
        lambda found: [*found[:-1], replace(found[-1], geometry=TWO)],
    ):
        monkeypatch.setattr(exchange, "read_annotations", lambda path, c=change: c(read(path)))
        with pytest.raises(QprdError, match="differs"):
            run(opened, ALL)
        assert file_bytes(colon_project) == before


# --- QuPath only


def others(project: Path, ours: set[str]) -> dict[str, dict[str, Any]]:
    return {key: item for key, item in snapshot(project, "2").items() if key not in ours}


@pytest.mark.qupath
def test_in_qupath_cells_nesting_and_predictions_stay(worked_project: Path) -> None:
    ours = {one.id for one in plan_import("2", ALL, ()).added}
    with paquo_backend.PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2"))
        before = snapshot(worked_project, "2")
        report = project.import_annotations(project.entries()[1], ALL)
        assert report.added == 4
        assert others(worked_project, ours) == before
        # A person nests an annotation of theirs in one of ours, which then goes.
        edit_in_qupath(worked_project, "2", nest_in("Donut"))
        report = project.import_annotations(project.entries()[1], imported(("x", TWO)))
        assert (report.added, report.removed) == (1, 4)
        after = snapshot(worked_project, "2")
        (nested,) = (item for item in after.values() if item["name"] == "of a person")
        assert nested["parent"] is None
        assert {key: after[key] for key in before} == before
        assert len(project.read_predictions(project.entries()[1]).tiles) == 50


def nest_in(name: str) -> Callable[[Any], None]:
    def change(hierarchy: Any) -> None:
        from paquo.java import JClass, PathObjects, ROIs

        plane = JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
        drawn = PathObjects.createAnnotationObject(
            ROIs.createRectangleROI(110.0, 110.0, 20.0, 20.0, plane)
        )
        drawn.setName("of a person")
        for item in hierarchy.getAnnotationObjects():
            if str(item.getName()) == name:
                item.addChildObject(drawn)

    return change


@pytest.mark.qupath
def test_in_qupath_what_a_person_edited_stays(worked_project: Path) -> None:
    def move(hierarchy: Any) -> None:
        for item in hierarchy.getAnnotationObjects():
            if str(item.getName()) == "Donut":
                item.setROI(item.getROI().translate(0.5, 0.0))
            if str(item.getName()) == "two":
                item.setName("renamed")

    with paquo_backend.PaquoProject(worked_project) as project:
        project.import_annotations(project.entries()[1], ALL)
        edit_in_qupath(worked_project, "2", move)
        before = snapshot(worked_project, "2")
        report = project.import_annotations(project.entries()[1], ALL)
        assert (report.added, report.unchanged, report.edited, report.removed) == (0, 2, 2, 0)
        assert snapshot(worked_project, "2") == before
        report = project.import_annotations(project.entries()[1], imported(("Donut", BEND)))
        assert (report.added, report.removed) == (1, 2)
        names = [item["name"] for item in snapshot(worked_project, "2").values()]
        assert names.count("Donut") == 2
        assert "renamed" in names


@pytest.mark.qupath
def test_in_qupath_an_image_that_was_never_saved_gets_annotations(colon_project: Path) -> None:
    shutil.rmtree(colon_project.parent / "data" / "1")
    with paquo_backend.PaquoProject(colon_project) as project:
        assert project.import_annotations(project.entries()[0], ALL).added == 4
        assert len(project.annotations(project.entries()[0])) == 4


@pytest.mark.qupath
def test_in_qupath_a_new_class_joins_the_projects(worked_project: Path) -> None:
    with paquo_backend.PaquoProject(worked_project) as project:
        before = {known.name: known for known in project.classes()}
        project.import_annotations(project.entries()[1], replace(ALL, path_class=PathClass("M: a")))
        after = {known.name: known for known in project.classes()}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"M: a"}


@pytest.mark.qupath
@pytest.mark.parametrize(
    "spoil",
    [
        lambda hierarchy: hierarchy.removeObject(next(iter(hierarchy.getCellObjects())), True),
        lambda hierarchy: [item.setLocked(True) for item in hierarchy.getAnnotationObjects()],
        lambda hierarchy: [
            item.setROI(item.getROI().translate(0.5, 0.0))
            for item in hierarchy.getAnnotationObjects()
            if str(item.getName()) == "two"
        ],
    ],
)
def test_in_qupath_any_difference_leaves_every_byte(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None]
) -> None:
    before = file_bytes(worked_project)
    original = EntryData.write

    def spoiled(self: EntryData, path: Path) -> None:
        spoil(self._file.hierarchy)
        original(self, path)

    monkeypatch.setattr(EntryData, "write", spoiled)
    with paquo_backend.PaquoProject(worked_project) as project, pytest.raises(QprdError):
        project.import_annotations(project.entries()[1], ALL)
    assert file_bytes(worked_project) == before
