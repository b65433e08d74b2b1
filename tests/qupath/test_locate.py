from __future__ import annotations

import contextlib
import shutil
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Literal
from unicodedata import normalize
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.qupath import locate
from qprd.qupath.locate import (
    SlideLocator,
    UnsupportedUriError,
    file_path,
    relative_to_project,
)
from qprd.qupath.project import SlideSource
from qprd.qupath.qpproj import ProjectFile, read_project_file


def at(uri: str) -> SlideSource:
    return SlideSource(uri=uri, path=None)


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"slide")
    return path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/a.svs", PurePosixPath("/data/a.svs")),
        ("file:/data/a.svs", PurePosixPath("/data/a.svs")),
        ("file://localhost/data/a.svs", PurePosixPath("/data/a.svs")),
        ("file:///data/50%25%20%23a%3F.svs", PurePosixPath("/data/50% #a?.svs")),
        ("file:///G:/New%20Volume%20(D)/a.svs", PureWindowsPath("G:/New Volume (D)/a.svs")),
        ("file:/C:/git/a.svs", PureWindowsPath("C:/git/a.svs")),
        ("file://server/share/a%20b.svs", PureWindowsPath("//server/share/a b.svs")),
        ("file:////server/share/a.svs", PureWindowsPath("//server/share/a.svs")),
        ("C:\\slides\\a.svs", PureWindowsPath("C:/slides/a.svs")),
        ("\\\\server\\share\\a.svs", PureWindowsPath("//server/share/a.svs")),
        ("/data/a.svs", PurePosixPath("/data/a.svs")),
    ],
)
def test_uris_of_all_systems_are_understood(uri: str, path: PurePath) -> None:
    found = file_path(uri)
    assert found == path
    assert type(found) is type(path)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://omero.org/webclient/?show=image-3", r"OMERO server.*\(omero download .*OME-TIFF"),
        ("omero:image/3", "OMERO server"),
        ("https://slides.org/a.svs", r"web server \(https://slides.org\).* download it"),
        ("s3://bucket/a.svs", r"cloud storage \(s3://bucket\).* copy it"),
        ("gopher://a/b.svs", "begins with gopher://"),
        ("", "no absolute path"),
        ("slides/a.svs", "no absolute path"),
        ("file:///data/a.svs#2", "part of a file"),
        ("file:///data/a.svs?name=x", "part of a file"),
        ("file:///data/%00.svs", "NUL"),
        ("file:///data/%ff.svs", "UTF-8"),
        ("file://[::1/a.svs", "malformed"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(uri: str, reason: str) -> None:
    with pytest.raises(UnsupportedUriError, match=reason):
        file_path(uri)


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_refused(uri: str) -> None:
    with contextlib.suppress(UnsupportedUriError):
        assert isinstance(file_path(uri), PurePath)


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))


@given(st.lists(names, min_size=1, max_size=4).filter(lambda parts: ":" not in parts[0]))
def test_percent_encoding_round_trips(parts: list[str]) -> None:
    assert file_path("file:///" + quote("/".join(parts))).parts[1:] == tuple(parts)


@pytest.mark.parametrize(
    ("slide", "project", "relative"),
    [
        ("/data/colon/slides/a.tif", "/data/colon/project/p.qpproj", "../slides/a.tif"),
        ("/data/p/a.tif", "/data/p/p.qpproj", "a.tif"),
        ("C:/Git/data/a.svs", "c:/git/qupath/p.qpproj", "../data/a.svs"),
        ("G:/a.svs", "C:/p/p.qpproj", None),
        ("/data/a.svs", "C:/p/p.qpproj", None),
    ],
)
def test_relative_to_the_recorded_project(slide: str, project: str, relative: str | None) -> None:
    found = relative_to_project(file_path(slide), file_path(project))
    assert (found.as_posix() if found else None) == relative


def test_an_ome_zarr_is_told_what_to_convert_it_with(tmp_path: Path) -> None:
    folder = tmp_path / "a.ome.zarr"
    folder.mkdir()
    found = SlideLocator(tmp_path / "p.qpproj").locate(at(f"{folder.as_uri()}/0"))
    assert found.path is None
    assert "OME-Zarr" in str(found.unsupported)
    assert "raw2ometiff" in str(found.unsupported)


def test_the_recorded_place_comes_first(tmp_path: Path) -> None:
    here, moved = make(tmp_path / "a.svs"), make(tmp_path / "slides" / "a.svs")
    found = SlideLocator(tmp_path / "p" / "p.qpproj", None, [moved.parent]).locate(
        at(here.as_uri())
    )
    assert found.path == here


def test_a_project_that_moved_with_its_slides_finds_them(tmp_path: Path) -> None:
    slide = make(tmp_path / "slides" / "a b.svs")
    make(tmp_path / "project" / "p.qpproj")
    locator = SlideLocator(tmp_path / "project" / "p.qpproj", "file:/G:/x/project/p.qpproj")
    assert locator.locate(at("file:///G:/x/slides/a%20b.svs")).path == slide


def test_a_project_behind_a_link_finds_slides_on_either_side(tmp_path: Path) -> None:
    make(tmp_path / "disk" / "project" / "p.qpproj")
    beside_disk = make(tmp_path / "disk" / "slides" / "a.svs")
    beside_link = make(tmp_path / "home" / "slides" / "b.svs")
    (tmp_path / "home" / "project").symlink_to(tmp_path / "disk" / "project")
    locator = SlideLocator(tmp_path / "home" / "project" / "p.qpproj", "file:/x/project/p.qpproj")
    assert locator.locate(at("file:///x/slides/a.svs")).path == beside_disk
    assert locator.locate(at("file:///x/slides/b.svs")).path == beside_link


def test_folders_are_searched_by_name_at_any_depth(tmp_path: Path) -> None:
    slide = make(tmp_path / "slides" / "2024" / "case 1" / "A.SVS")
    locator = SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"])
    found = locator.locate(at("file:///G:/old/a.svs"))
    assert found.path == slide


@pytest.mark.parametrize(("recorded", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_the_same_name(
    tmp_path: Path, recorded: Literal["NFC", "NFD"], listed: Literal["NFC", "NFD"]
) -> None:
    slide = make(tmp_path / "slides" / normalize(listed, "Fälle") / normalize(listed, "Präp.svs"))
    make(tmp_path / "slides" / "Other" / normalize(listed, "Präp.svs"))
    name = quote(normalize(recorded, "Präp.svs"))
    by_folder = f"file:///G:/{quote(normalize(recorded, 'Fälle'))}/{name}"
    locator = SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"])
    assert locator.locate(at(by_folder)).path == slide
    in_place = (slide.parent / "x").as_uri().replace("/x", f"/{name}")
    assert SlideLocator(tmp_path / "p.qpproj").locate(at(in_place)).path == slide


def test_of_equal_names_the_one_in_equal_folders_is_meant(tmp_path: Path) -> None:
    make(tmp_path / "slides" / "case 1" / "a.svs")
    meant = make(tmp_path / "slides" / "Case 2" / "a.svs")
    locator = SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"])
    assert locator.locate(at("file:///G:/old/case%202/a.svs")).path == meant


def test_equal_names_without_a_difference_are_refused_and_named(tmp_path: Path) -> None:
    paths = [make(tmp_path / "slides" / case / "a.svs") for case in ("1", "2")]
    found = SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"]).locate(
        at("file:/x/a.svs")
    )
    assert found.path is None
    assert found.unsupported is not None
    assert all(str(path) in found.unsupported for path in paths)
    assert "--slides" in found.unsupported


def test_one_file_seen_twice_is_not_ambiguous(tmp_path: Path) -> None:
    slide = make(tmp_path / "slides" / "in" / "a.svs")
    (tmp_path / "slides" / "link.svs").symlink_to(slide)
    folders = [tmp_path / "slides", tmp_path / "slides" / "in", tmp_path / "slides"]
    found = SlideLocator(tmp_path / "p.qpproj", None, folders).locate(at("file:/x/a.svs"))
    assert found.path is not None
    assert found.path.samefile(slide)


def test_a_cycle_of_links_ends(tmp_path: Path) -> None:
    slide = make(tmp_path / "slides" / "in" / "a.svs")
    (tmp_path / "slides" / "in" / "up").symlink_to(tmp_path / "slides")
    locator = SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"])
    assert locator.locate(at("file:/x/a.svs")).path == slide


def test_a_huge_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        make(tmp_path / "slides" / f"{number}.svs")
    monkeypatch.setattr(locate, "MAX_FILES", 4)
    with pytest.raises(QprdError, match="more than 4 files"):
        SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "slides"]).locate(at("file:/x/a.svs"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="no such folder"):
        SlideLocator(tmp_path / "p.qpproj", None, [tmp_path / "none"])


def test_names_too_long_for_the_system_are_merely_missing(tmp_path: Path) -> None:
    found = SlideLocator(tmp_path / "p.qpproj").locate(at("file:///" + "a" * 5000))
    assert (found.path, found.unsupported) == (None, None)


def found_in(project: ProjectFile, *slides: Path) -> list[SlideSource]:
    locator = SlideLocator(project.path, project.uri, slides)
    return [locator.locate(entry.source) for entry in project.entries]


def test_slides_laid_beside_a_moved_project_are_found(colon_project: Path) -> None:
    project = read_project_file(colon_project)
    before = colon_project.read_bytes()
    sources = found_in(project)
    assert [s.path for s in sources] == [
        colon_project.parents[1] / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
    ]
    assert all(s.unsupported is None for s in sources)
    assert colon_project.read_bytes() == before


def test_slides_elsewhere_are_found_by_name(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "far" / "away" / "project.qpproj"
    path.parent.mkdir(parents=True)
    shutil.copyfile(shared_data / "qupath/colon/project/project.qpproj", path)
    project = read_project_file(path)
    missing = found_in(project)
    assert [s.path for s in missing] == [None, None]
    found = found_in(project, shared_data)
    assert [s.path for s in found] == [
        shared_data / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
    ]


@pytest.mark.parametrize(
    "name",
    ["v0.3.0_104-images", "v0.4.0_foci", "v0.5.1_4-images", "v0.5.1_no-data", "v0.6.0_cells"],
)
def test_slides_of_strangers_are_missing_and_nothing_worse(shared_data: Path, name: str) -> None:
    project = read_project_file(shared_data / "qupath/foreign" / name / "project.qpproj")
    sources = found_in(project)
    assert sources
    assert all(s.path is None for s in sources)


def test_a_slide_that_is_no_file_is_unsupported(tmp_path: Path) -> None:
    recorded = SlideSource(uri="https://omero.org/image/3", path=None)
    source = SlideLocator(tmp_path / "p.qpproj").locate(recorded)
    assert source.path is None
    assert "https" in str(source.unsupported)
