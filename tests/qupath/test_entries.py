from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qprd.qupath.entries import find_entries, slide_source
from qprd.qupath.locate import SlideLocator
from qprd.qupath.qpproj import read_project_file
from qprd.qupath.servers import RecordedServer


def test_slides_laid_beside_a_moved_project_are_found(colon_project: Path) -> None:
    project = read_project_file(colon_project)
    before = colon_project.read_bytes()
    entries = find_entries(project, SlideLocator(project.path, project.uri))
    assert [e.source.path for e in entries] == [
        colon_project.parents[1] / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
    ]
    assert all(e.source.unsupported is None for e in entries)
    assert colon_project.read_bytes() == before


def test_slides_elsewhere_are_found_by_name(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "far" / "away" / "project.qpproj"
    path.parent.mkdir(parents=True)
    shutil.copyfile(shared_data / "qupath/colon/project/project.qpproj", path)
    project = read_project_file(path)
    missing = find_entries(project, SlideLocator(path, project.uri))
    assert [e.source.path for e in missing] == [None, None]
    assert all(len(e.source.tried) == 2 for e in missing)
    found = find_entries(project, SlideLocator(path, project.uri, [shared_data]))
    assert [e.source.path for e in found] == [
        shared_data / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
    ]


@pytest.mark.parametrize(
    "name",
    ["v0.3.0_104-images", "v0.4.0_foci", "v0.5.1_4-images", "v0.5.1_no-data", "v0.6.0_cells"],
)
def test_every_missing_slide_of_a_stranger_says_where_it_was_looked_for(
    shared_data: Path, name: str
) -> None:
    project = read_project_file(shared_data / "qupath/foreign" / name / "project.qpproj")
    entries = find_entries(project, SlideLocator(project.path, project.uri))
    assert entries
    assert all(e.source.path is None and e.source.tried for e in entries)


def test_a_slide_that_is_no_file_is_unsupported(tmp_path: Path) -> None:
    server = RecordedServer(uri="https://omero.org/image/3")
    source = slide_source(server, SlideLocator(tmp_path / "p.qpproj"))
    assert source.path is None
    assert "https" in str(source.unsupported)
