from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.qupath import asap
from qprd.qupath.asap import AsapAnnotations, read_asap

Read = Callable[..., AsapAnnotations]

SQUARE = [(0, 0), (100, 0), (100, 100), (0, 100)]
INNER = [(20, 20), (60, 20), (60, 60), (20, 60)]


def annotation(
    group: str, points: Sequence[tuple[float, float]], kind: str = "Polygon", name: str = "a"
) -> str:
    coordinates = "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{coordinates}</Coordinates></Annotation>"
    )


def document(*annotations: str, groups: str = "", head: str = '<?xml version="1.0"?>') -> str:
    return (
        f"{head}<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations>"
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def group(name: str, parent: str) -> str:
    return f'<Group Name="{name}" PartOfGroup="{parent}" Color="#00ff00"><Attributes /></Group>'


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def _read(text: str, suffix: str = ".xml", encoding: str = "utf-8") -> AsapAnnotations:
        path = tmp_path / f"slide{suffix}"
        path.write_bytes(text.encode(encoding))
        return read_asap(path)

    return _read


@pytest.mark.parametrize(
    ("file", "outlines", "area_px2"),
    [
        ("tumor_076.xml", 39, 2_341_503_170),
        ("Tumor_076.json", 38, 2_341_540_025),
        ("tumor_085.xml", 50, 479_677_081),
        ("Tumor_085.json", 50, 479_674_866),
    ],
)
def test_the_real_files(shared_data: Path, file: str, outlines: int, area_px2: float) -> None:
    found = read_asap(shared_data / "camelyon16" / file)
    assert len(found.tumor) == outlines
    assert all(region.geometry.is_valid and region.geometry.area > 0 for region in found.tumor)
    assert sum(region.geometry.area for region in found.tumor) == pytest.approx(area_px2, abs=1)
    assert any("crossed themselves" in note for note in found.notes)
    assert not any("left out" in note for note in found.notes)
    # The one outline that the JSON lacks is the spline.
    assert any("splines" in note for note in found.notes) == (file == "tumor_076.xml")


def test_xml_and_json_of_a_slide_agree(shared_data: Path) -> None:
    folder = shared_data / "camelyon16"
    xml = read_asap(folder / "tumor_085.xml").tumor
    numbers = read_asap(folder / "Tumor_085.json").tumor
    for one, two in zip(xml, numbers, strict=True):
        # The JSON is rounded to whole pixels.
        assert shapely.hausdorff_distance(one.geometry, two.geometry) < 1


@pytest.mark.parametrize("name", ["_0", "_1", "Tumor", "tumor", "METASTASIS", "metastases"])
def test_groups_that_mean_tumor(read: Read, name: str) -> None:
    (region,) = read(document(annotation(name, SQUARE, name="big one"))).tumor
    assert region.name == "big one"
    assert region.geometry.equals(shapely.box(0, 0, 100, 100))


@pytest.mark.parametrize("name", ["_2", "Exclusion", "EXCLUSION", "Negative", "normal"])
def test_groups_that_mean_a_hole(read: Read, name: str) -> None:
    found = read(document(annotation(name, INNER), annotation("_0", SQUARE)))
    (region,) = found.tumor
    assert region.geometry.area == 100 * 100 - 40 * 40
    assert len(region.geometry.geoms[0].interiors) == 1
    assert found.notes == ()


def test_a_hole_is_cut_out_of_every_tumor_it_meets(read: Read) -> None:
    crossing = [(50, -10), (150, -10), (150, 110), (50, 110)]
    far = [(x + 1000, y) for x, y in SQUARE]
    neighbor = [(x + 100, y) for x, y in SQUARE]
    found = read(document(*(annotation("_0", p) for p in (SQUARE, neighbor, far)),
                          annotation("_2", crossing)))  # fmt: skip
    assert [region.geometry.area for region in found.tumor] == [5000, 5000, 10_000]


def test_what_holes_cover_or_miss_is_said(read: Read) -> None:
    covered = read(document(annotation("_0", INNER), annotation("_2", SQUARE)))
    assert covered.tumor == ()
    assert covered.notes == ("1 tumor annotations left out: holes cover them",)
    outside = [(x + 1000, y) for x, y in INNER]
    missed = read(document(annotation("_0", SQUARE), annotation("_2", outside)))
    assert missed.notes == ("1 holes are in no tumor and change nothing",)


def test_unknown_groups_are_said_and_not_dropped_silently(read: Read) -> None:
    found = read(document(annotation("None", SQUARE), annotation("Necrosis", INNER),
                          annotation("_0", SQUARE)))  # fmt: skip
    assert len(found.tumor) == 1
    assert sum("left out: their group" in note for note in found.notes) == 2
    assert any("'Necrosis'" in note for note in found.notes)


def test_a_subgroup_means_what_the_group_above_it_means(read: Read) -> None:
    groups = group("macro", "Tumor") + group("Tumor", "None") + group("x", "y") + group("y", "x")
    found = read(document(annotation("macro", SQUARE), annotation("x", INNER), groups=groups))
    assert len(found.tumor) == 1
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("Dot", [(5, 5)]),
        ("PointSet", SQUARE),
        ("Measurement", SQUARE[:2]),
        ("None", SQUARE),
        ("Polygon", SQUARE[:2]),
        ("Polygon", []),
        ("Polygon", [(0, 0), (5, 5), (10, 10)]),
    ],
)
def test_what_has_no_area_is_noted(
    read: Read, kind: str, points: list[tuple[float, float]]
) -> None:
    found = read(document(annotation("_0", points, kind), annotation("_0", SQUARE)))
    assert len(found.tumor) == 1
    assert any(f"1 annotations of type '{kind}' left out" in note for note in found.notes)


def test_rectangles_and_splines_are_areas(read: Read) -> None:
    found = read(document(annotation("_0", SQUARE, "Rectangle"),
                          annotation("_0", [(0, 0), (30, 20)], "Rectangle"),
                          annotation("_0", SQUARE, "Spline")))  # fmt: skip
    assert [region.geometry.area for region in found.tumor] == [10_000, 600, 10_000]


def test_an_outline_that_crosses_itself_is_repaired(read: Read) -> None:
    found = read(document(annotation("_0", [(0, 0), (100, 100), (100, 0), (0, 100)])))
    (region,) = found.tumor
    assert region.geometry.is_valid
    assert region.geometry.area == 5000
    assert found.notes == ("1 outlines crossed themselves and were repaired",)


def test_a_scribble_is_left_out_and_said(read: Read) -> None:
    scribble = np.random.default_rng(0).integers(0, 10_000, (400, 2)).tolist()
    found = read(document(annotation("_0", scribble), annotation("_0", SQUARE)))
    assert [region.geometry.area for region in found.tumor] == [10_000]
    assert found.notes == ("1 outlines left out: they cross themselves more than 500 times",)


def test_points_are_taken_in_their_order(read: Read) -> None:
    text = document(annotation("_0", SQUARE))
    swapped = text.replace('Order="1"', 'Order="9"').replace('Order="2"', 'Order="1"')
    assert read(swapped).notes != ()
    assert read(swapped.replace('Order="9"', 'Order="2"')).tumor != ()
    reordered = (
        '<Coordinate Order="1" X="100" Y="0" /><Coordinate Order="0" X="0" Y="0" />'
        '<Coordinate Order="3" X="0" Y="100" /><Coordinate Order="2" X="100" Y="100" />'
    )
    (region,) = read(
        document(
            '<Annotation Name="" Type="Polygon" PartOfGroup="_0"><Coordinates>'
            f"{reordered}</Coordinates></Annotation>"
        )
    ).tumor
    assert region.geometry.equals(shapely.box(0, 0, 100, 100))


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e999", "five", "", "1,5"])
@pytest.mark.parametrize("suffix", [".xml", ".json"])
def test_coordinates_that_are_no_numbers_are_refused(read: Read, value: str, suffix: str) -> None:
    text = document(annotation("_0", SQUARE), annotation("_0", SQUARE, name="bad"))
    text = text[::-1].replace('"001"', f'"{value[::-1]}"', 1)[::-1]
    if suffix == ".json":
        text = json.dumps({"positive": [{"name": "bad", "vertices": [[0, value], [1, 2]]}]})
    with pytest.raises(QprdError, match=r"\('bad'\) has a coordinate that is not a finite number"):
        read(text, suffix)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "head", [BOMB, OUTSIDE, '<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://localhost/x.dtd">']
)
def test_entities_and_document_types_are_refused(read: Read, head: str) -> None:
    name = "&b;" if "ENTITY b" in head else "&e;" if "ENTITY e" in head else "a"
    with pytest.raises(QprdError, match="document type or entities"):
        read(document(annotation("_0", SQUARE, name=name), head=head))


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("", ".xml"),
        ("not xml", ".xml"),
        ("<ASAP_Annotations><Annotations>", ".xml"),
        ("<Annotations></Annotations>", ".xml"),
        ('<?xml version="1.0" encoding="klingon"?><ASAP_Annotations/>', ".xml"),
        ("", ".json"),
        ("[]", ".json"),
        ("{}", ".json"),
        ('{"type": "FeatureCollection", "features": []}', ".json"),
        ('{"positive": [3]}', ".json"),
        ('{"positive": [{"name": "a"}]}', ".json"),
        ('{"positive": 7}', ".json"),
    ],
)
def test_other_files_are_refused(read: Read, text: str, suffix: str) -> None:
    with pytest.raises(QprdError, match="This is not a") as caught:
        read(text, suffix)
    assert caught.value.where is not None


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for name in ("missing.xml", "missing.json"):
        with pytest.raises(QprdError, match="no such file"):
            read_asap(tmp_path / name)
    with pytest.raises(QprdError, match="no such file"):
        read_asap(tmp_path)


def test_other_encodings_are_read(read: Read) -> None:
    head = '<?xml version="1.0" encoding="utf-16"?>'
    text = document(annotation("_0", SQUARE, name="\u00e9"), head=head)
    assert read(text, encoding="utf-16").tumor[0].name == "\u00e9"


def test_size_and_points_are_bounded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    text = document(annotation("_0", SQUARE), annotation("_0", SQUARE))
    numbers = json.dumps({"positive": [{"name": "a", "vertices": SQUARE}] * 2})
    monkeypatch.setattr(asap, "_MAX_POINTS", 7)
    for content, suffix in ((text, ".xml"), (numbers, ".json")):
        with pytest.raises(QprdError, match="more than 7 points"):
            read(content, suffix)
    monkeypatch.setattr(asap, "_MAX_BYTES", 100)
    for content, suffix in ((text, ".xml"), (numbers, ".json")):
        with pytest.raises(QprdError, match="too large"):
            read(content, suffix)


def test_names_of_strangers_are_shortened(read: Read) -> None:
    found = read(document(annotation("x" * 10_000, SQUARE), annotation("_0", SQUARE)))
    assert len(found.notes[0]) < 250


def test_json_groups(read: Read) -> None:
    root = {
        "positive": [{"name": "one", "vertices": SQUARE}, {"vertices": []}],
        "negative": [{"name": "two", "vertices": INNER}],
        "unsure": [{"name": "three", "vertices": INNER}],
    }
    found = read(json.dumps(root), ".JSON")
    assert [(r.name, r.geometry.area) for r in found.tumor] == [("one", 10_000 - 1600)]
    assert any("'unsure'" in note for note in found.notes)
    assert any("no area" in note for note in found.notes)


coordinate = st.floats(-1e6, 1e6, allow_nan=False)
outlines = st.lists(st.tuples(coordinate, coordinate), max_size=8)


@given(st.lists(st.tuples(st.sampled_from(["_0", "_2", "other"]), outlines), max_size=6))
def test_whatever_is_drawn_gives_valid_areas(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, list[tuple[float, float]]]]
) -> None:
    path = tmp_path_factory.mktemp("drawn") / "a.xml"
    path.write_text(document(*(annotation(name, points) for name, points in drawn)))
    found = read_asap(path)
    for region in found.tumor:
        assert region.geometry.is_valid
        assert region.geometry.area > 0
    if not found.tumor and any(name == "_0" for name, _ in drawn):
        assert found.notes
