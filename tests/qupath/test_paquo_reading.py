"""Reading through a real QuPath, and what must not be believed."""

from __future__ import annotations

import math
import shutil
from functools import partial
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
from shapely import get_coordinates

from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.paquo_backend import PaquoProject
from qprd.sampling.regions import label_regions
from qprd.settings import TrainConfig
from tests.helpers.qupath_work import (
    BROKEN_OUTLINES,
    draw_broken_outlines,
    draw_nested_areas,
    edit_in_qupath,
    file_bytes,
    make_predictions,
)

pytestmark = [pytest.mark.qupath, pytest.mark.usefixtures("qupath")]


@pytest.mark.parametrize("number", [0, 1])
def test_annotations_are_those_of_qupaths_own_export(
    colon_project: Path, shared_data: Path, number: int
) -> None:
    exported = shared_data / "qupath" / "colon" / "annotations"
    with PaquoProject(colon_project) as ours:
        found = ours.annotations(ours.entries()[number])
    with ExchangeProject(colon_project, annotations=exported) as theirs:
        expected = theirs.annotations(theirs.entries()[number])
    assert len(found) == (3, 2)[number]
    assert sorted(found, key=lambda item: item.id) == sorted(expected, key=lambda item: item.id)


def test_both_backends_give_the_same_entries_and_classes(
    colon_project: Path, shared_data: Path
) -> None:
    exported = shared_data / "qupath" / "colon" / "annotations"
    with (
        PaquoProject(colon_project) as ours,
        ExchangeProject(colon_project, annotations=exported) as theirs,
    ):
        assert ours.entries() == theirs.entries()
        assert list(ours.classes()) == list(theirs.classes())
        assert [entry.source.path for entry in ours.entries()] == [
            colon_project.parents[1] / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
        ]


def test_slides_elsewhere_are_found_in_given_folders(
    colon_project: Path, shared_data: Path
) -> None:
    (colon_project.parents[1] / "slides").unlink()
    with PaquoProject(colon_project, slides=[shared_data / "slides"]) as project:
        assert all(entry.source.path is not None for entry in project.entries())


def test_a_foreign_project_lists_its_entries_and_their_annotations(shared_data: Path) -> None:
    project = shared_data / "qupath" / "foreign" / "v0.6.0_cells" / "project.qpproj"
    with PaquoProject(project) as opened:
        (entry,) = opened.entries()
        annotations = opened.annotations(entry)
    assert len(annotations) == 10
    assert sorted({item.class_name for item in annotations if item.class_name}) == [
        "circles",
        "class_1",
        "two_circles",
    ]


@pytest.mark.parametrize(
    "name", ["v0.3.0_104-images", "v0.4.0_foci", "v0.5.1_4-images", "v0.5.1_no-data"]
)
def test_foreign_projects_are_read_or_refused_in_plain_words(
    shared_data: Path, name: str, tmp_path: Path
) -> None:
    shutil.copytree(shared_data / "qupath" / "foreign" / name, tmp_path / name)
    project = tmp_path / name / "project.qpproj"
    before = file_bytes(project)
    refused = []
    with PaquoProject(project) as opened:
        for entry in opened.entries():
            try:
                assert list(opened.annotations(entry)) == []
            except QprdError as error:
                refused.append((entry.id, str(error)))
    assert file_bytes(project) == before
    if name == "v0.5.1_4-images":
        ((entry_id, message),) = refused
        assert entry_id == "117"
        assert "data.qpdata is missing" in message
    else:
        assert refused == []


def test_annotations_that_qupath_cannot_export_are_named_and_the_others_are_read(
    colon_project: Path,
) -> None:
    edit_in_qupath(colon_project, "1", draw_broken_outlines)
    with PaquoProject(colon_project) as project:
        entry = project.entries()[0]
        found = {str(one.name): one for one in project.annotations(entry)}
        assert len(found) == 3 + len(BROKEN_OUTLINES)
        assert {name for name, one in found.items() if one.fault} == BROKEN_OUTLINES.keys()
        for name, points in BROKEN_OUTLINES.items():
            assert found[name].class_name == "Tumor"
            known = {point for point in points if not math.isnan(sum(point))}
            assert set(map(tuple, get_coordinates(found[name].geometry))) == known
        project.write_predictions(entry, make_predictions("1"))
        again = {str(one.name): one for one in project.annotations(entry)}
    assert {name: again[name].fault for name in found} == {
        name: one.fault for name, one in found.items()
    }


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_half_a_data_file_is_refused_and_left_alone(worked_project: Path, kept: float) -> None:
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    whole = data.read_bytes()
    data.write_bytes(whole[: int(len(whole) * kept)])
    before = file_bytes(worked_project)
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        for attempt in (
            lambda: project.annotations(entry),
            lambda: project.read_predictions(entry),
            lambda: project.write_predictions(entry, make_predictions("2")),
        ):
            with pytest.raises(QprdError, match=r"data\.qpdata cannot be read"):
                attempt()
    assert file_bytes(worked_project) == before


def test_fewer_objects_than_qupath_saved_are_refused(worked_project: Path) -> None:
    folder = worked_project.parent / "data"
    shutil.copyfile(folder / "1" / "data.qpdata", folder / "2" / "data.qpdata")
    with (
        PaquoProject(worked_project) as project,
        pytest.raises(QprdError, match="holds 3 objects, but QuPath had saved 2007"),
    ):
        project.annotations(project.entries()[1])


def test_a_save_that_qupath_did_not_finish_is_refused(worked_project: Path) -> None:
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    data.rename(data.with_name("data.qpdata.bkp"))
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match=r"bkp"):
        project.write_predictions(project.entries()[1], make_predictions("2"))


@pytest.mark.parametrize(("drawn", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_class_in_another_unicode_form_is_the_same_class(
    worked_project: Path, drawn: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    edit_in_qupath(worked_project, "1", partial(draw_nested_areas, normalize(drawn, "Gewächs")))
    with PaquoProject(worked_project) as project:
        entry = project.entries()[0]
        annotations = project.annotations(entry)
        assert normalize(drawn, "Gewächs") in [item.class_name for item in annotations]
    config = TrainConfig(tumor_class=(normalize(asked, "Gewächs"),))
    regions = label_regions(annotations, 4000, 4000, mpp=1.0, config=config)
    # Drawn one in the other, they are one area with a hole.
    assert regions.tumor_region.area == 100**2 - 50**2
