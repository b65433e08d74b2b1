from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from qprd.cli import app
from qprd.errors import QprdError
from qprd.jobs.import_asap import import_asap
from qprd.qupath.asap import read_asap
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.paquo_backend import PaquoProject

#: The tumor of slide 076 spans x 10,444 to 106,436 and y 3,839 to 70,630.
SCALE, LEFT, TOP = 0.035, 10_000, 3_000


def place(
    source: Path, target: Path, *, scale: float = SCALE, x: float = 0, y: float = 0, name: str = ""
) -> Path:
    """The real outlines of a slide, made small enough for the colon slides, and moved."""

    def moved(match: re.Match[str]) -> str:
        return (
            f'X="{(float(match[1]) - LEFT) * scale + x:.4f}" '
            f'Y="{(float(match[2]) - TOP) * scale + y:.4f}"'
        )

    text = re.sub(r'X="([^"]*)" Y="([^"]*)"', moved, source.read_text())
    target.write_text(text)
    return target


@pytest.fixture
def real_xml(shared_data: Path) -> Path:
    return shared_data / "camelyon16" / "tumor_076.xml"


@pytest.fixture(params=["exchange", pytest.param("paquo", marks=pytest.mark.qupath)])
def opened(request: pytest.FixtureRequest, exported: Path) -> Callable[[], Any]:
    kind = PaquoProject if request.param == "paquo" else ExchangeProject
    return lambda: kind(exported)


@pytest.fixture
def exported(colon_project: Path, shared_data: Path) -> Path:
    """The colon project, its annotations exported for the exchange backend."""
    folder = colon_project.parent / "qprd" / "annotations"
    folder.mkdir(parents=True)
    for number in (1, 2):
        source = shared_data / "qupath" / "colon" / "annotations" / f"colon_{number}.tif.geojson"
        shutil.copyfile(source, folder / f"{number}.geojson")
    return colon_project


def tumor_of(project: Any, number: int = 0) -> list[Any]:
    return [
        one for one in project.annotations(project.entries()[number]) if one.class_name == "Tumor"
    ]


def test_real_outlines_become_annotations(opened: Any, real_xml: Path, tmp_path: Path) -> None:
    file = place(real_xml, tmp_path / "small.xml")
    with opened() as project:
        before = project.annotations(project.entries()[0])
        summary = import_asap(project, file, image="colon_1.tif")
        after = project.annotations(project.entries()[0])
        again = import_asap(project, file, image="colon_1.tif")
        other = import_asap(
            project,
            place(real_xml, file, scale=0.02),
            image="colon_1.tif",
            tumor_class="Tumor: big",
        )
        last = project.annotations(project.entries()[0])
    assert (summary.added, summary.unchanged, summary.removed) == (39, 0, 0)
    assert any("splines" in note for note in summary.notes)
    assert not any("outside" in note or "cut off" in note for note in summary.notes)
    new = [one for one in after if one not in before]
    assert len(after) == len(before) + 39
    meant = read_asap(place(real_xml, tmp_path / "again.xml")).tumor
    by_name = {one.name: one for one in new}
    for region in meant:
        found = by_name[region.name]
        assert found.class_name == "Tumor"
        assert found.geometry.is_valid
        difference = shapely.symmetric_difference(found.geometry, region.geometry).area
        assert difference <= 0.02 * region.geometry.length
    assert (again.added, again.unchanged) == (0, 39)
    assert (other.added, other.unchanged, other.removed) == (39, 0, 39)
    assert [one for one in last if one in before] == list(before)
    assert sum(one.class_name == "Tumor: big" for one in last) == 39


def test_what_is_outside_is_left_out_or_cut_off_and_said(
    exported: Path, real_xml: Path, tmp_path: Path
) -> None:
    file = place(real_xml, tmp_path / "moved.xml", x=1500, y=-400)
    with ExchangeProject(exported) as project:
        summary = import_asap(project, file, image="colon_1.tif")
        drawn = tumor_of(project)[1:]
    left_out = [int(n.split()[0]) for n in summary.notes if "outside the image" in n]
    cut_off = [int(n.split()[0]) for n in summary.notes if "cut off" in n]
    assert summary.added == 39 - sum(left_out) == len(drawn)
    assert sum(left_out) > 0
    assert sum(cut_off) > 0
    image = shapely.box(0, 0, 3584, 8448)
    assert all(image.covers(one.geometry) for one in drawn)


def test_a_file_of_another_slide_is_refused(exported: Path, real_xml: Path) -> None:
    file = exported.parent / "qprd" / "annotations" / "1.geojson"
    before = file.read_bytes()
    with (
        ExchangeProject(exported) as project,
        pytest.raises(QprdError, match="None of the 39 tumor annotations is on this image") as why,
    ):
        import_asap(project, real_xml, image="colon_1.tif")
    assert "10444" in str(why.value)
    assert "3584 x 8448 px" in str(why.value)
    assert file.read_bytes() == before


def test_json_is_read_too(exported: Path, tmp_path: Path) -> None:
    square = [[0, 0], [500, 0], [500, 500], [0, 500]]
    hole = [[100, 100], [200, 100], [200, 200], [100, 200]]
    file = tmp_path / "Tumor.json"
    file.write_text(
        json.dumps(
            {
                "positive": [{"name": "one", "vertices": square}],
                "negative": [{"name": "two", "vertices": hole}],
            }
        )
    )
    with ExchangeProject(exported) as project:
        assert import_asap(project, file, image="colon_2.tif").added == 1
        assert tumor_of(project, 1)[-1].geometry.area == 500 * 500 - 100 * 100


def test_a_file_without_tumor_says_what_it_has(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_text(
        '<ASAP_Annotations><Annotations><Annotation Name="a" Type="Dot" PartOfGroup="Mitosis">'
        '<Coordinates><Coordinate Order="0" X="1" Y="2"/></Coordinates></Annotation></Annotations>'
        "</ASAP_Annotations>"
    )
    with (
        ExchangeProject(exported) as project,
        pytest.raises(QprdError, match=r"no tumor annotation.*'Mitosis'"),
    ):
        import_asap(project, file, image="colon_1.tif")


def change_image(project: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    root = json.loads(project.read_text())
    change(root["images"][number])
    project.write_text(json.dumps(root))


def turned(image: dict[str, Any]) -> None:
    image["serverBuilder"] = {
        "builderType": "rotated",
        "builder": image["serverBuilder"],
        "rotation": "ROTATE_90",
    }


def cropped(image: dict[str, Any]) -> None:
    image["serverBuilder"] = {
        "builderType": "cropped",
        "builder": image["serverBuilder"],
        "region": {"x": 10, "y": 10, "width": 1000, "height": 1000, "z": 0, "t": 0},
    }


@pytest.mark.parametrize(("change", "said"), [(turned, "turned"), (cropped, "cropped")])
def test_turned_and_cropped_images_are_refused(
    exported: Path, real_xml: Path, tmp_path: Path, change: Any, said: str
) -> None:
    change_image(exported, 0, change)
    file = place(real_xml, tmp_path / "small.xml")
    with ExchangeProject(exported) as project, pytest.raises(QprdError, match=said):
        import_asap(project, file, image="colon_1.tif")


def test_without_its_slide_an_image_is_refused(
    exported: Path, real_xml: Path, tmp_path: Path
) -> None:
    """Only the slide says whether QuPath crops it."""
    (exported.parents[1] / "slides").unlink()
    with ExchangeProject(exported) as project, pytest.raises(QprdError, match="not where") as why:
        import_asap(project, place(real_xml, tmp_path / "a.xml"), image="colon_1.tif")
    assert "--slides" in str(why.value)


def test_images_must_be_there_and_unique(exported: Path, real_xml: Path) -> None:
    with ExchangeProject(exported) as project, pytest.raises(QprdError, match="no image"):
        import_asap(project, real_xml, image="colon")
    change_image(exported, 0, lambda image: image.update(imageName="colon_2.tif"))
    with ExchangeProject(exported) as project, pytest.raises(QprdError, match="fits 2"):
        import_asap(project, real_xml, image="colon_2.tif")


def test_a_slide_with_bounds_has_its_annotations_where_qupath_shows_them(
    exported: Path, scn: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    """QuPath's (0, 0) is OpenSlide's (96, 160)."""
    path, _ = scn

    def to_scn(image: dict[str, Any]) -> None:
        image["imageName"] = path.name
        image["serverBuilder"] |= {"uri": path.as_uri(), "metadata": {}}
        shutil.rmtree(exported.parent / "data" / "1")

    change_image(exported, 0, to_scn)
    (exported.parent / "qprd" / "annotations" / "1.geojson").unlink()
    file = tmp_path / "bounds.json"
    square = [
        [96 + 10, 160 + 20],
        [96 + 110, 160 + 20],
        [96 + 110, 160 + 120],
        [96 + 10, 160 + 120],
    ]
    file.write_text(json.dumps({"positive": [{"name": "a", "vertices": square}]}))
    with ExchangeProject(exported) as project:
        summary = import_asap(project, file, image=path.name)
        (found,) = project.annotations(project.entries()[0])
    assert found.geometry.bounds == (10, 20, 110, 120)
    assert "moved by -96, -160 px, as QuPath crops the slide" in summary.notes


def test_the_command_says_how_to_get_them_into_qupath(
    exported: Path, real_xml: Path, tmp_path: Path
) -> None:
    file = place(real_xml, tmp_path / "small.xml")
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        app,
        ["import-asap", str(file), str(exported), "--image", "colon_2.tif", "--backend", "exchange",
         "--tumor-class", "Tumor:lymph node", "--json", str(report)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "import_annotations.groovy" in done.output
    assert "of class Tumor: lymph node added" in done.output
    written = json.loads(report.read_text())
    assert written["added"] > 0
    assert written["tumor_class"] == "Tumor: lymph node"
    assert str(file) not in (exported.parent / "qprd" / "annotations" / "2.geojson").read_text()


@pytest.mark.parametrize("name", ["Tumor: qprd", " "])
def test_a_class_of_ours_is_refused_and_nothing_written(
    exported: Path, real_xml: Path, tmp_path: Path, name: str
) -> None:
    file = exported.parent / "qprd" / "annotations" / "1.geojson"
    before = file.read_bytes()
    with ExchangeProject(exported) as project, pytest.raises(QprdError, match="class"):
        import_asap(
            project, place(real_xml, tmp_path / "a.xml"), image="colon_1.tif", tumor_class=name
        )
    assert file.read_bytes() == before
