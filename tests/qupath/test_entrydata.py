"""Whatever is done to an object of the user's, the digests before and after tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.entrydata import EntryData
from qprd.qupath.java import QuPath

pytestmark = pytest.mark.qupath


@pytest.fixture
def data(qupath: QuPath, worked_project: Path) -> EntryData:
    found = EntryData.read(qupath, EntryFolder(worked_project.parent / "data" / "2"))
    assert found is not None
    return found


def annotation(hierarchy: Any, name: str) -> Any:
    (found,) = [
        item for item in hierarchy.getAnnotationObjects() if str(item.getName()).startswith(name)
    ]
    return found


def cell(hierarchy: Any) -> Any:
    return next(iter(hierarchy.getCellObjects()))


def other_class(hierarchy: Any) -> None:
    from paquo.java import PathClass

    cell(hierarchy).setPathClass(PathClass.fromString("Stroma"))


def no_class(hierarchy: Any) -> None:
    annotation(hierarchy, "outer").resetPathClass()


def moved(hierarchy: Any) -> None:
    outer = annotation(hierarchy, "outer")
    outer.setROI(outer.getROI().translate(0.0, 0.01))


def other_nucleus(hierarchy: Any) -> None:
    """QuPath has no setter: a cell of the same id in its place."""
    from paquo.java import PathObjects

    before = cell(hierarchy)
    nucleus = before.getNucleusROI().translate(0.5, 0.0)
    after = PathObjects.createCellObject(
        before.getROI(), nucleus, before.getPathClass(), before.getMeasurementList()
    )
    after.setID(before.getID())
    parent = before.getParent()
    hierarchy.removeObject(before, True)
    parent.addChildObject(after)


def one_more_measurement(hierarchy: Any) -> None:
    from paquo.java import String

    cell(hierarchy).getMeasurementList().put(String("Another"), 1.0)


def one_measurement_less(hierarchy: Any) -> None:
    cell(hierarchy).getMeasurementList().remove("Cell: Area")


def another_parent(hierarchy: Any) -> None:
    moving = cell(hierarchy)
    annotation(hierarchy, "inner").addChildObject(moving)


def unlocked(hierarchy: Any) -> None:
    annotation(hierarchy, "inner").setLocked(False)


def renamed(hierarchy: Any) -> None:
    cell(hierarchy).setName("a cell")


def described(hierarchy: Any) -> None:
    annotation(hierarchy, "inner").setDescription("another description")


def marked(hierarchy: Any) -> None:
    cell(hierarchy).getMetadata().put("reviewed by", "Anna")


def recolored(hierarchy: Any) -> None:
    annotation(hierarchy, "outer").setColor(0, 255, 0)


def lost(hierarchy: Any) -> None:
    hierarchy.removeObject(cell(hierarchy), True)


def doubled(hierarchy: Any) -> None:
    from paquo.java import PathObjects

    outer = annotation(hierarchy, "outer")
    twin = PathObjects.createAnnotationObject(outer.getROI(), outer.getPathClass())
    twin.setName(outer.getName())
    twin.setID(outer.getID())
    hierarchy.addObject(twin)


def new(hierarchy: Any) -> None:
    from paquo.java import PathObjects

    roi = annotation(hierarchy, "outer").getROI()
    hierarchy.addObject(PathObjects.createDetectionObject(roi))


@pytest.mark.parametrize(
    "change",
    [
        other_class,
        no_class,
        moved,
        other_nucleus,
        one_more_measurement,
        one_measurement_less,
        another_parent,
        unlocked,
        renamed,
        described,
        marked,
        recolored,
        lost,
        doubled,
        new,
    ],
)
def test_a_change_of_one_object_is_told(
    qupath: QuPath, data: EntryData, change: Callable[[Any], None]
) -> None:
    before = data.digests()
    assert before.size() == 2007
    assert len(qupath.bulk.changed(before, data.digests())) == 0
    change(data._file.hierarchy)
    assert len(qupath.bulk.changed(before, data.digests())) == 1


def test_tissue_microarrays_are_written_as_they_were(
    qupath: QuPath, data: EntryData, tmp_path: Path
) -> None:
    from paquo.java import JClass, PathObjects

    cores = [
        PathObjects.createTMACoreObject(100.0 * number, 50.0, 80.0, number == 1)
        for number in range(3)
    ]
    cores[0].setName("A-1")
    grid = JClass("qupath.lib.objects.hierarchy.DefaultTMAGrid")
    data._file.hierarchy.setTMAGrid(grid.create(JClass("java.util.Arrays").asList(cores), 3))
    before = data.digests()
    assert before.size() == 2010
    data.write(tmp_path / "written")
    after = EntryData.read_file(qupath, tmp_path / "written")
    assert len(qupath.bulk.changed(before, after.digests())) == 0
    stored = after._file.hierarchy.getTMAGrid()
    assert [stored.getGridWidth(), stored.getGridHeight()] == [3, 1]
    assert [core.isMissing() for core in stored.getTMACoreList()] == [False, True, False]
