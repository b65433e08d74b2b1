"""Which file has the annotations that were exported from QuPath."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import pytest

from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.image_record import image_record
from tests.helpers.annotation_file import annotation_file
from tests.helpers.small_project import named_project


@pytest.mark.parametrize(
    "name",
    [
        "{id}.geojson",
        "{name}.geojson",
        "{stem}.geojson",
        "{stem}.GeoJSON",
        "{name}.json",
        "{id}.geojson.gz",
        "{stem}.json.gz",
    ],
)
def test_annotations_are_found_by_id_or_name(
    colon_project: Path, exported: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for number in (1, 2):
        given = name.format(id=number, name=f"colon_{number}.tif", stem=f"colon_{number}")
        content = (exported / f"colon_{number}.tif.geojson").read_bytes()
        (folder / given).write_bytes(gzip.compress(content) if given.endswith("gz") else content)
    project = ExchangeProject(colon_project, annotations=folder)
    counts = [len(project.annotations(entry)) for entry in project.entries()]
    assert counts == [3, 2]


def test_annotations_exported_into_the_project_are_found(
    project: ExchangeProject, exported: Path
) -> None:
    first, second = project.entries()
    assert project.annotations(first) == ()
    assert "3 annotations in QuPath, none exported" in str(project.annotation_source(first).note)
    assert "export_annotations.groovy" in str(project.annotation_source(first).note)
    target = project.path.parent / "qprd" / "annotations" / "1.geojson"
    target.parent.mkdir(parents=True)
    shutil.copyfile(exported / "colon_1.tif.geojson", target)
    assert [a.class_name for a in project.annotations(first)] == ["Tumor", "Normal", "Ignore*"]
    assert project.annotation_source(first).file == target
    assert project.annotation_source(first).problem is None
    assert project.annotations(second) == ()


def test_an_export_older_than_qupaths_data_is_noted(
    project: ExchangeProject, tmp_path: Path
) -> None:
    entry = project.entries()[0]
    exported = annotation_file(project.path.parent / "qprd" / "annotations", "1.geojson")
    data = project.path.parent / "data" / "1" / "data.qpdata"
    os.utime(data, ns=(0, exported.stat().st_mtime_ns - 1))
    assert project.annotation_note(entry) is None
    os.utime(data, ns=(0, exported.stat().st_mtime_ns + 1))
    note = project.annotation_note(entry)
    assert note is not None
    assert note.startswith("exported before QuPath last saved this image: In QuPath: Automate")
    assert len(project.annotations(entry)) == 1
    # A folder of the user's is taken as it is.
    old = annotation_file(tmp_path / "given", "1.geojson")
    os.utime(old, ns=(0, 0))
    given = ExchangeProject(project.path, annotations=tmp_path / "given")
    assert given.annotation_note(entry) is None
    data.unlink()
    assert project.annotation_note(entry) is None


def test_a_file_of_another_image_is_refused(project: ExchangeProject) -> None:
    folder = project.path.parent / "qprd" / "annotations"
    annotation_file(folder, "1.geojson", qprd={"entry": "2", "image": "colon_2.tif"})
    with pytest.raises(QprdError, match=r"colon_2\.tif \(id 2\); in this .* colon_1\.tif, another"):
        project.annotations(project.entries()[0])


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"image": "colon_2.tif", "uri": "file:///x/colon_2.tif"}, False),
        ({"image": "renamed in QuPath"}, True),
        ({"image": "renamed in QuPath", "uri": "file:/other/folder/colon_1.tif"}, True),
        ({"image": "colon_1.tif", "uri": "file:///moved/and/renamed.tif"}, True),
        ({"image": "renamed in QuPath", "uri": None}, False),
        ({"width": 3000}, False),
        ({"height": 8449}, True),
        ({"fingerprint": "0" * 32}, False),
        ({"image": "b", "uri": "file:///b", "fingerprint": True}, True),
        ({"image": 3, "uri": [], "width": "wide", "height": None}, True),
    ],
)
def test_the_image_of_a_file_is_known_by_more_than_its_id(
    project: ExchangeProject, tmp_path: Path, change: dict[str, Any], is_same: bool
) -> None:
    """As after a project was made anew, or ``qprd`` was copied from another one."""
    entry = project.entries()[0]
    record = image_record(entry)
    assert record.keys() == {"entry", "image", "uri", "width", "height", "fingerprint"}
    if "fingerprint" not in change:
        del record["fingerprint"]
    elif change["fingerprint"] is True:
        change["fingerprint"] = record["fingerprint"]
    record |= change
    annotation_file(project.path.parent / "qprd" / "annotations", "1.geojson", qprd=record)
    given = annotation_file(tmp_path / "given", "1.geojson", qprd={**record, "entry": "7"}).parent
    for opened in (project, ExchangeProject(project.path, annotations=given)):
        if is_same:
            assert len(opened.annotations(entry)) == 1
        else:
            with pytest.raises(QprdError, match=r"in this project, id 1 is colon_1\.tif"):
                opened.annotations(entry)


@pytest.mark.parametrize("other", ["colon_1.tif.geojson", "1.json", "colon_1.geojson.gz"])
def test_several_files_for_one_image_are_refused(
    colon_project: Path, tmp_path: Path, other: str
) -> None:
    for name in ("1.geojson", other):
        annotation_file(tmp_path / "given", name)
    project = ExchangeProject(colon_project, annotations=tmp_path / "given")
    with pytest.raises(QprdError, match="Several files") as caught:
        project.annotations(project.entries()[0])
    assert "1.geojson" in caught.value.problem
    assert other in caught.value.problem
    assert project.annotations(project.entries()[1]) == ()


@pytest.mark.parametrize(
    ("suffix", "advice"), [(".xml", "qprd import-asap"), (".annotations", "GeoJSON")]
)
def test_files_of_other_programs_are_named_where_there_is_no_geojson(
    colon_project: Path, tmp_path: Path, suffix: str, advice: str
) -> None:
    for name in (f"colon_1.tif{suffix}", f"colon_2{suffix}", "colon_2.geojson"):
        annotation_file(tmp_path / "given", name)
    project = ExchangeProject(colon_project, annotations=tmp_path / "given")
    first, second = project.entries()
    assert project.annotations(first) == ()
    note = project.annotation_note(first)
    assert note is not None
    assert suffix in note
    assert advice in note
    assert len(project.annotations(second)) == 1
    assert project.annotation_note(second) is None


@pytest.mark.parametrize(("written", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_name_in_another_unicode_form_is_the_same_name(
    tmp_path: Path, written: Literal["NFC", "NFD"], listed: Literal["NFC", "NFD"]
) -> None:
    path = named_project(tmp_path / "p", normalize(written, "Präparat.tif")).path
    annotation_file(tmp_path / "given", normalize(listed, "Präparat.geojson"))
    project = ExchangeProject(path, annotations=tmp_path / "given")
    assert len(project.annotations(project.entries()[0])) == 1


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["a.svs", "a.svs"], "a.svs.geojson"),
        (["a.svs", "a.tif"], "a.geojson"),
        (["x.svs", "1"], "1.geojson"),
    ],
)
def test_one_file_for_several_images_is_refused(
    tmp_path: Path, names: list[str], file: str
) -> None:
    path = named_project(tmp_path / "p", *names).path
    annotation_file(tmp_path / "given", file)
    project = ExchangeProject(path, annotations=tmp_path / "given")
    for entry in project.entries():
        with pytest.raises(QprdError, match="several images"):
            project.annotations(entry)


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["2.tif", "1.tif"], "1.geojson"),
        (["a.svs", "a.svs"], "a.svs.geojson"),
        (["a.svs", "a.tif"], "a.geojson"),
        (["x.svs", "1"], "1.geojson"),
    ],
)
def test_the_file_name_that_is_advised_works(tmp_path: Path, names: list[str], file: str) -> None:
    path = named_project(tmp_path / "p", *names).path
    for index in range(len(names)):
        given = tmp_path / str(index)
        wrong = annotation_file(given, file)
        project = ExchangeProject(path, annotations=given)
        entry = project.entries()[index]
        with pytest.raises(QprdError) as caught:
            project.annotations(entry)
        advised = str(caught.value.fix).rpartition(": ")[2].removesuffix(".")
        wrong.rename(given / advised)
        assert len(project.annotations(entry)) == 1


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/secret", "..", ".", "a/../../secret", "a\0b", "..\\secret", "x" * 5000, ""],
)
def test_names_from_the_project_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    annotation_file(tmp_path, "secret.geojson", "secret")
    annotation_file(tmp_path / "given" / "a", "b.geojson", "inner")
    path = named_project(tmp_path / "p", name).path
    project = ExchangeProject(path, annotations=tmp_path / "given")
    assert project.annotations(project.entries()[0]) == ()


def test_a_folder_is_listed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    names = [f"{number}.tif" for number in range(20)]
    for name in names[1:]:
        (given / f"{name}.geojson").write_text("[]")
    os.utime(given, ns=(0, 0))
    listed: list[object] = []
    scandir = os.scandir

    def noted(place: Path) -> Any:
        listed.append(place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", noted)
    project = ExchangeProject(named_project(tmp_path, *names).path, annotations=given)
    listed.clear()
    missing = [e.name for e in project.entries() if project.annotation_source(e).file is None]
    assert missing == names[:1]
    assert listed == [given]
    (given / "0.geojson").write_text("[]")
    assert project.annotation_source(project.entries()[0]).file == given / "0.geojson"
