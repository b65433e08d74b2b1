"""Projects made without QuPath, opened by QuPath."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from qprd.demo.creation import NewSlide, create_project
from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.project import Annotation
from tests.helpers.annotation_file import annotation_file
from tests.helpers.qupath_work import make_predictions, write

DRAWN = {"Tumor", "Normal", "Ignore*"}


@pytest.fixture
def created(shared_data: Path, tmp_path: Path) -> Path:
    slides = [
        NewSlide(
            shared_data / "slides" / f"colon_{number}.tif",
            0.5015,
            {"split": split},
            json.loads(
                (
                    shared_data / "qupath" / "colon" / "annotations" / f"colon_{number}.tif.geojson"
                ).read_text(encoding="utf-8")
            ),
        )
        for number, split in ((1, "train"), (2, "val"))
    ]
    slides.append(NewSlide(shared_data / "slides" / "cmu-1-small-region.svs", 0.499))
    return create_project(tmp_path / "a new\u00b5 folder", slides)


def test_exchange_opens_what_was_created(created: Path) -> None:
    with ExchangeProject(created) as project:
        entries = project.entries()
        assert [entry.id for entry in entries] == ["1", "2", "3"]
        assert [entry.metadata for entry in entries] == [{"split": "train"}, {"split": "val"}, {}]
        for entry in entries:
            assert entry.source.path is not None
            assert entry.source.unsupported is None
        assert entries[1].source.mpp == pytest.approx(0.5015)
        assert (entries[1].source.width, entries[1].source.height) == (2048, 8448)
        assert [len(project.annotations(entry)) for entry in entries] == [3, 2, 0]
        assert [item.name for item in project.classes()] == ["Tumor", "Normal", "Ignore*"]
    with Image.open(created.parent / "data" / "1" / "thumbnail.jpg") as thumbnail:
        assert max(thumbnail.size) >= 800


def test_a_project_that_is_there_is_not_replaced(created: Path) -> None:
    before = created.read_bytes()
    with pytest.raises(QprdError, match="already holds a project"):
        create_project(created.parent, [])
    assert created.read_bytes() == before


def test_a_slide_that_is_none_leaves_no_project(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="cannot be opened"):
        create_project(tmp_path / "p", [NewSlide(shared_data / "slides" / "broken.svs", 0.5)])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_qupath_opens_it_and_reads_the_slides(created: Path) -> None:
    from paquo._logging import redirect
    from paquo.projects import QuPathProject

    opened = QuPathProject(created, mode="r")
    assert [image.image_name for image in opened.images] == [
        "colon_1.tif",
        "colon_2.tif",
        "cmu-1-small-region.svs",
    ]
    for image, size in zip(opened.images, [(3584, 8448), (2048, 8448), (2220, 2967)], strict=True):
        with redirect():
            server = image.java_object.getServerBuilder().build()
            pixels = server.readRegion(16.0, 0, 0, 1600, 1600)
        assert (server.getWidth(), server.getHeight()) == size
        assert pixels.getWidth() == 100
        calibration = server.getPixelCalibration()
        assert float(calibration.getAveragedPixelSizeMicrons()) == pytest.approx(0.5, abs=0.01)
        server.close()


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_the_first_write_brings_annotations_into_qupath(created: Path) -> None:
    with ExchangeProject(created) as exchange:
        drawn = {entry.id: exchange.annotations(entry) for entry in exchange.entries()}

    def found() -> dict[str, list[Annotation]]:
        with PaquoProject(created) as paquo:
            entries = paquo.entries()
            assert [paquo.annotation_note(entry) for entry in entries] == [None] * 3
            return {
                entry.id: [one for one in paquo.annotations(entry) if one.class_name in DRAWN]
                for entry in entries
            }

    assert {entry_id: len(some) for entry_id, some in drawn.items()} == {"1": 3, "2": 2, "3": 0}
    for times_written in range(3):
        assert {entry_id: {one.id: one for one in some} for entry_id, some in found().items()} == {
            entry_id: {one.id: one for one in some} for entry_id, some in drawn.items()
        }
        assert len(list(created.parent.glob("data/*/data.qpdata"))) == min(times_written, 1)
        write(created, 0, make_predictions("1"))


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_annotations_in_a_file_alone_are_noted_once_qupath_has_saved_the_image(
    created: Path,
) -> None:
    write(created, 2, make_predictions("3"))
    annotation_file(created.parent / "qprd" / "annotations", "3.geojson")
    with PaquoProject(created) as paquo:
        note = paquo.annotation_note(paquo.entries()[2])
    assert note is not None
    assert note.startswith("Annotations in qprd/annotations are not used")


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
@pytest.mark.parametrize("classification", [None, {"name": "Tumor: qprd", "color": [1, 2, 3]}])
def test_annotations_that_label_nothing_are_not_noted(
    created: Path, classification: dict[str, object] | None
) -> None:
    write(created, 2, make_predictions("3"))
    file = annotation_file(created.parent / "qprd" / "annotations", "3.geojson")
    root = json.loads(file.read_text(encoding="utf-8"))
    for drawn in root["features"]:
        drawn["properties"]["classification"] = classification
    file.write_text(json.dumps(root), encoding="utf-8")
    with PaquoProject(created) as paquo:
        assert paquo.annotation_note(paquo.entries()[2]) is None


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_a_faulty_annotation_of_a_file_does_not_stop_the_first_write(created: Path) -> None:
    file = created.parent / "qprd" / "annotations" / "1.geojson"
    root = json.loads(file.read_text(encoding="utf-8"))
    for drawn in root["features"]:
        drawn["properties"]["classification"].pop("color", None)
    flat = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]}
    root["features"].append({"type": "Feature", "geometry": flat, "properties": {}})
    file.write_text(json.dumps(root), encoding="utf-8")
    write(created, 0, make_predictions("1"))
    with PaquoProject(created) as paquo:
        found = paquo.annotations(paquo.entries()[0])
    assert len([one for one in found if one.class_name in DRAWN]) == 3
