from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shapely.geometry import box

from qprd.errors import QprdError
from qprd.predictions import (
    SCORE,
    Predictions,
)
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.predictions_geojson import predictions_from_geojson
from qprd.qupath.project import Entry, PathClass, Project
from tests.helpers.annotation_file import annotation_file
from tests.helpers.small_project import named_project, predictions


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_a_project(project: ExchangeProject, colon_project: Path) -> None:
    def as_protocol(value: Project) -> Project:
        return value

    with as_protocol(project) as opened:
        assert opened.backend == "exchange"
        assert opened.version == "0.6.0"
        assert opened.path == colon_project
        assert [entry.name for entry in opened.entries()] == ["colon_1.tif", "colon_2.tif"]


def test_reading_changes_nothing(colon_project: Path, exported: Path) -> None:
    before = files(colon_project.parent)
    with ExchangeProject(colon_project, annotations=exported) as project:
        for entry in project.entries():
            assert project.annotations(entry)
            assert project.read_predictions(entry) == Predictions((), ())
        assert project.classes()
    assert files(colon_project.parent) == before


def test_ids_that_are_not_the_projects_own_never_become_files(project: ExchangeProject) -> None:
    stranger = replace(project.entries()[0], id="../../3")
    before = files(project.path.parents[1])
    for use in (
        project.annotations,
        project.read_predictions,
        lambda entry: project.write_predictions(entry, predictions()),
    ):
        with pytest.raises(QprdError, match="no image"):
            use(stranger)
    assert files(project.path.parents[1]) == before


def test_classes_are_the_projects_and_those_drawn(colon_project: Path, tmp_path: Path) -> None:
    annotation_file(tmp_path / "given", "1.geojson")
    project = ExchangeProject(colon_project, annotations=tmp_path / "given")
    assert project.classes() == (
        PathClass("Tumor", (200, 0, 0)),
        PathClass("Normal", (0, 200, 0)),
        PathClass("Ignore*", (180, 180, 180)),
        PathClass("Stroma", (150, 200, 150)),
        PathClass("Drawn", (1, 2, 3)),
    )


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"pathClasses": 3}'])
def test_malformed_classes_are_named(colon_project: Path, text: str) -> None:
    path = colon_project.parent / "classifiers" / "classes.json"
    path.write_text(text)
    with pytest.raises(QprdError) as caught:
        ExchangeProject(colon_project).classes()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "in_qupath"),
    [
        ("v0.3.0_104-images", None),
        ("v0.4.0_foci", None),
        ("v0.5.1_4-images", 3),
        ("v0.5.1_no-data", None),
        ("v0.6.0_cells", 10),
    ],
)
def test_projects_of_strangers_open_and_say_what_is_missing(
    shared_data: Path, name: str, in_qupath: int | None
) -> None:
    project = ExchangeProject(shared_data / "qupath" / "foreign" / name / "project.qpproj")
    project.classes()
    sources = [project.annotation_source(entry) for entry in project.entries()]
    assert in_qupath in [source.in_qupath for source in sources]
    assert all(source.file is None for source in sources)
    assert all(project.annotations(entry) == () for entry in project.entries())


def test_written_predictions_are_read_back(project: ExchangeProject) -> None:
    first, second = project.entries()
    report = project.write_predictions(first, predictions())
    assert (report.tiles, report.contours, report.review, report.replaced) == (3, 1, 1, 0)
    assert report.where == project.path.parent / "qprd" / "predictions" / "1.geojson"
    found = project.read_predictions(first)
    assert found.tiles == predictions().tiles
    assert found.metadata == predictions().metadata
    assert found.contours[0].measurements == predictions().contours[0].measurements
    assert found.review[0].measurements == predictions().review[0].measurements
    assert project.read_predictions(second) == Predictions((), ())


def test_writing_again_replaces_and_changes_no_other_file(project: ExchangeProject) -> None:
    entry = project.entries()[0]
    before = files(project.path.parents[1])
    project.write_predictions(entry, predictions(tiles=5, bundle="old"))
    report = project.write_predictions(entry, predictions(tiles=2))
    assert report.replaced == 7
    assert [tile.id for tile in project.read_predictions(entry).tiles] == [
        tile.id for tile in predictions(tiles=2).tiles
    ]
    after = files(project.path.parents[1])
    assert after.pop(report.where)
    assert {path: after[path] for path in after if "qprd" not in path.parts} == before
    assert {path.relative_to(project.path.parent).parts[:2] for path in after.keys() - before} == {
        ("qprd", "lock"),
        ("qprd", "backups"),
    }


@pytest.mark.parametrize("link", ["qprd/predictions", "qprd/predictions/1.geojson"])
def test_a_link_out_of_the_project_is_not_written_through(
    project: ExchangeProject, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = project.path.parent / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside / "new" if place.suffix else outside)
    with pytest.raises(QprdError, match="outside the project; nothing was written"):
        project.write_predictions(project.entries()[0], predictions())
    assert list(outside.iterdir()) == []


def test_a_damaged_file_of_ours_is_replaced(project: ExchangeProject) -> None:
    entry = project.entries()[0]
    target = project.prediction_file(entry)
    target.parent.mkdir(parents=True)
    target.write_text("half a fi")
    with pytest.raises(QprdError, match="not valid JSON"):
        project.read_predictions(entry)
    assert project.write_predictions(entry, predictions()).replaced == 0
    assert len(project.read_predictions(entry).tiles) == 3


def test_a_difference_found_on_reading_back_keeps_the_earlier_file(
    project: ExchangeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = project.entries()[0]
    project.write_predictions(entry, predictions())
    before = files(project.path.parent)
    changes = [
        lambda found: replace(found, tiles=found.tiles[1:]),
        lambda found: replace(found, tiles=(replace(found.tiles[0], x=0.5), *found.tiles[1:])),
        lambda found: replace(
            found, tiles=(replace(found.tiles[0], measurements={SCORE: 1.25}), *found.tiles[1:])
        ),
        lambda found: replace(found, contours=()),
        lambda found: replace(found, review=()),
        lambda found: replace(
            found, contours=(replace(found.contours[0], polygon=box(0, 0, 1000, 1000)),)
        ),
        lambda found: replace(found, contours=(replace(found.contours[0], name="other"),)),
        lambda found: replace(found, contour_color=(1, 2, 3)),
        lambda found: replace(found, metadata={}),
    ]
    from qprd.qupath import exchange

    read = predictions_from_geojson
    for change in changes:
        monkeypatch.setattr(
            exchange, "predictions_from_geojson", lambda path, change=change: change(read(path))
        )
        with pytest.raises(QprdError, match="differs"):
            project.write_predictions(entry, predictions())
        assert files(project.path.parent) == before


def test_predictions_that_cannot_be_stored_change_nothing(project: ExchangeProject) -> None:
    entry = project.entries()[0]
    before = files(project.path.parents[1])
    bad = replace(predictions(), tiles=(replace(predictions().tiles[0], id="1"),))
    with pytest.raises(QprdError):
        project.write_predictions(entry, bad)
    assert files(project.path.parents[1]) == before


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_earlier_predictions(tmpfs: Path) -> None:
    project = named_project(tmpfs, "a.svs")
    (entry,) = project.entries()
    project.write_predictions(entry, predictions())
    before = files(tmpfs)
    with pytest.raises(QprdError, match="No space left") as caught:
        project.write_predictions(entry, predictions(tiles=2000))
    assert "All files are as they were" in str(caught.value)
    assert files(tmpfs) == before


def test_a_read_only_project_keeps_the_earlier_predictions(tmpfs: Path) -> None:
    project = named_project(tmpfs, "a.svs", "b.svs")
    first, second = project.entries()
    project.write_predictions(first, predictions())
    before = files(tmpfs)
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    for entry in (first, second):
        with pytest.raises(QprdError, match="cannot be written"):
            project.write_predictions(entry, predictions(tiles=1))
    assert files(tmpfs) == before


def test_folders_that_are_not_there_are_named(colon_project: Path, tmp_path: Path) -> None:
    for options in ({"slides": [tmp_path / "none"]}, {"annotations": tmp_path / "none"}):
        with pytest.raises(QprdError, match="no such folder"):
            ExchangeProject(colon_project, **options)


def test_an_entry_without_any_server_is_listed(tmp_path: Path) -> None:
    (entry,) = named_project(tmp_path, "a.svs").entries()
    assert isinstance(entry, Entry)
    assert entry.source.path is None
    assert entry.source.unsupported is not None
