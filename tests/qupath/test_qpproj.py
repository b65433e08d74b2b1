from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import QprdError
from qprd.qupath.qpproj import read_project_file
from qprd.qupath.servers import parse_server

BIOFORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"
OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"


def metadata(width: int, height: int, mpp: float | None = 0.5, **others: Any) -> dict[str, Any]:
    unit = "px" if mpp is None else "µm"
    side = {"value": mpp or 1.0, "unit": unit}
    return {
        "width": width,
        "height": height,
        "isRGB": True,
        "pixelType": "UINT8",
        "sizeZ": 1,
        "sizeT": 1,
        "pixelCalibration": {"pixelWidth": side, "pixelHeight": side},
        **others,
    }


def uri_server(**members: Any) -> dict[str, Any]:
    return {
        "builderType": "uri",
        "providerClassName": OPENSLIDE,
        "uri": "file:///data/a.svs",
        "args": [],
        "metadata": metadata(400, 300),
        **members,
    }


def rotated(inner: Any, rotation: str, **members: Any) -> dict[str, Any]:
    return {"builderType": "rotated", "builder": inner, "rotation": rotation, **members}


def cropped(inner: Any, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    region = {"x": x, "y": y, "width": width, "height": height, "z": 0, "t": 0}
    return {"builderType": "cropped", "builder": inner, "region": region}


def write_project(folder: Path, *images: Any, **members: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "project.qpproj"
    path.write_text(json.dumps({"version": "0.6.0", "images": list(images), **members}))
    return path


def image(entry_id: object = 1, **members: Any) -> dict[str, Any]:
    return {"serverBuilder": uri_server(), "entryID": entry_id, "imageName": "a.svs", **members}


def test_reads_the_colon_project(shared_data: Path) -> None:
    project = read_project_file(shared_data / "qupath/colon/project/project.qpproj")
    assert (project.version, project.uri) == ("0.6.0", "file:/data/colon/project/project.qpproj")
    assert [(e.id, e.name, e.metadata) for e in project.entries] == [
        ("1", "colon_1.tif", {"split": "train"}),
        ("2", "colon_2.tif", {"split": "val"}),
    ]
    server = project.entries[0].source
    assert (server.width, server.height, server.rotation, server.crop) == (3584, 8448, 0, None)
    assert server.mpp == pytest.approx(0.5015296654797131)
    assert server.unsupported is None


@pytest.mark.parametrize(
    ("name", "version", "entries", "usable"),
    [
        ("v0.3.0_104-images", "0.3.0", 104, 104),
        ("v0.4.0_foci", "0.4.0", 44, 0),
        ("v0.5.1_4-images", "0.5.1", 4, 4),
        ("v0.5.1_no-data", "0.5.1", 2, 2),
        ("v0.6.0_cells", "0.6.0", 1, 0),
    ],
)
def test_reads_projects_of_strangers(
    shared_data: Path, name: str, version: str, entries: int, usable: int
) -> None:
    project = read_project_file(shared_data / "qupath/foreign" / name / "project.qpproj")
    assert project.version == version
    assert len(project.entries) == entries
    reasons = [entry.source.unsupported for entry in project.entries]
    assert reasons.count(None) == usable
    assert all(reason is None or "not RGB" in reason for reason in reasons)


def test_a_rotated_slide_has_the_size_of_its_own_frame(shared_data: Path) -> None:
    project = read_project_file(shared_data / "qupath/foreign/v0.3.0_104-images/project.qpproj")
    server = project.entries[0].source
    assert (server.rotation, server.width, server.height) == (90, 45618, 45816)
    assert server.file_size == (45816, 45618)
    assert {entry.source.rotation for entry in project.entries} == {0, 90}


def test_a_slide_that_nothing_is_recorded_about_stays_unknown(shared_data: Path) -> None:
    project = read_project_file(shared_data / "qupath/foreign/v0.5.1_no-data/project.qpproj")
    server = project.entries[0].source
    assert (server.width, server.height, server.mpp, server.unsupported) == (None,) * 4


@pytest.mark.parametrize("path", ["slides/colon_1.tif", "slides/broken.svs", "patches/pcam"])
def test_other_files_are_no_project(shared_data: Path, path: str) -> None:
    with pytest.raises(QprdError):
        read_project_file(shared_data / path)


def test_missing_metadata_comes_from_server_json(tmp_path: Path) -> None:
    bare = uri_server()
    del bare["metadata"]
    path = write_project(tmp_path, image(serverBuilder=bare))
    saved = tmp_path / "data" / "1" / "server.json"
    saved.parent.mkdir(parents=True)
    untyped = uri_server()
    del untyped["builderType"]
    for text, width in [
        (json.dumps(uri_server()), 400),
        (json.dumps(untyped), 400),
        (json.dumps(rotated(uri_server(), "ROTATE_180")), None),
        ("[" * 100_000, None),
        ("null", None),
    ]:
        saved.write_text(text)
        assert read_project_file(path).entries[0].source.width == width


def pixels(server: dict[str, Any], file: np.ndarray) -> np.ndarray:
    """What QuPath's servers show of a file's pixels, done with numpy."""
    if server["builderType"] == "uri":
        return file
    inner = pixels(server["builder"], file)
    if server["builderType"] == "rotated":
        turns = ["ROTATE_NONE", "ROTATE_90", "ROTATE_180", "ROTATE_270"].index(server["rotation"])
        return np.rot90(inner, -turns)  # numpy counts counterclockwise
    r = server["region"]
    return inner[r["y"] : r["y"] + r["height"], r["x"] : r["x"] + r["width"]]


@given(st.data())
def test_crops_and_rotations_in_any_order_are_one_crop_and_one_rotation(
    data: st.DataObject,
) -> None:
    width, height = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    file = np.arange(width * height).reshape(height, width)
    server = uri_server(metadata=metadata(width, height))
    for _ in range(data.draw(st.integers(0, 5))):
        frame = pixels(server, file)
        if data.draw(st.booleans()):
            turn = data.draw(st.sampled_from([0, 90, 180, 270]))
            server = rotated(server, f"ROTATE_{turn or 'NONE'}")
        else:
            x = data.draw(st.integers(0, frame.shape[1] - 1))
            y = data.draw(st.integers(0, frame.shape[0] - 1))
            w = data.draw(st.integers(1, frame.shape[1] - x))
            h = data.draw(st.integers(1, frame.shape[0] - y))
            server = cropped(server, x, y, w, h)
    found = parse_server(server)
    assert found.unsupported is None
    x, y, w, h = found.crop or (0, 0, width, height)
    frame = pixels(server, file)
    assert (found.width, found.height) == (frame.shape[1], frame.shape[0])
    np.testing.assert_array_equal(
        np.rot90(file[y : y + h, x : x + w], -(found.rotation // 90)), frame
    )


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (None, "where its pixels come from"),
        ([], "where its pixels come from"),
        ({"builderType": "rotated", "rotation": "ROTATE_90"}, "where its pixels come from"),
        ({"builderType": "sparse", "regions": []}, "several images"),
        ({"builderType": "affine", "builder": uri_server()}, "affine"),
        ({"builderType": "color_deconvolved", "builder": uri_server()}, "stains"),
        (rotated({"builderType": "channels", "builder": uri_server()}, "ROTATE_90"), "channels"),
        ({"builderType": "from the future"}, "does not know"),
        ({"builderType": 3}, "does not know"),
        (rotated(uri_server(), "ROTATE_45"), "rotation is not understood"),
        (cropped(uri_server(), 300, 0, 101, 10), "out of the image"),
        (cropped(uri_server(), -1, 0, 10, 10), "out of the image"),
        (cropped(uri_server(), 0, 0, 0, 10), "out of the image"),
        (cropped(uri_server(metadata=None), 0, 0, 10**400, 10), "out of the image"),
        (cropped(uri_server(metadata=None), 2**31, 0, 10, 10), "out of the image"),
        ({"builderType": "cropped", "builder": uri_server(), "region": [1]}, "crop"),
        (rotated(uri_server(), "ROTATE_90", metadata=metadata(400, 300)), "do not agree"),
        (
            cropped(rotated(uri_server(metadata=None), "ROTATE_90"), 0, 0, 5, 5),
            "size not recorded",
        ),
        (uri_server(metadata=metadata(4, 4, isRGB=False, pixelType="UINT16")), "not RGB"),
        (uri_server(metadata=metadata(4, 4, pixelType="FLOAT32")), "not RGB"),
        (uri_server(metadata=metadata(4, 4, sizeZ=5)), "stack"),
        (uri_server(providerClassName=BIOFORMATS, args=["--series", "2"]), "series 2"),
        (uri_server(providerClassName=BIOFORMATS, args=["--series=2"]), "series 2"),
        (uri_server(providerClassName=BIOFORMATS, args=["--dims", "XYZCT"]), "--dims"),
        (uri_server(providerClassName=BIOFORMATS, args=["--no-crop"]), "--no-crop"),
        (uri_server(args="--series 2"), "not understood"),
        (uri_server(args=[["--series"]]), "not understood"),
    ],
)
def test_pixels_that_cannot_be_used_have_a_reason(server: object, reason: str) -> None:
    found = parse_server(server).unsupported
    assert found is not None
    assert reason in found


def pyramid(server: object, *, metadata: object = None) -> dict[str, Any]:
    return {"builderType": "pyramidize", "builder": server, "metadata": metadata}


def test_a_pyramid_made_by_qupath_leaves_the_frame_as_it_is() -> None:
    plain = cropped(rotated(uri_server(), "ROTATE_90"), 5, 6, 70, 80)
    inside = cropped(rotated(pyramid(uri_server()), "ROTATE_90"), 5, 6, 70, 80)
    outside = pyramid(plain, metadata=metadata(70, 80))
    assert parse_server(plain) == parse_server(inside)
    assert parse_server(plain) == parse_server(outside)


def test_the_size_of_a_file_may_be_recorded_with_its_pyramid_alone() -> None:
    server = pyramid(uri_server(metadata=None), metadata=metadata(400, 300))
    assert parse_server(server).file_size == (400, 300)
    turned = rotated(uri_server(metadata=None), "ROTATE_90", metadata=metadata(300, 400))
    assert parse_server(turned).file_size is None


def test_a_pyramid_of_another_size_than_its_image_is_refused() -> None:
    server = pyramid(uri_server(), metadata=metadata(200, 150))
    assert "do not agree" in str(parse_server(server).unsupported)


def test_very_deep_nests_of_servers_are_refused() -> None:
    server: dict[str, Any] = uri_server()
    for _ in range(200):
        server = rotated(server, "ROTATE_90")
    assert "too deeply" in str(parse_server(server).unsupported)


@pytest.mark.parametrize("args", [[], ["--series", "0"]])
def test_the_first_series_of_bioformats_passes_and_shows_the_whole_file(args: list[str]) -> None:
    server = parse_server(uri_server(providerClassName=BIOFORMATS, args=args))
    assert server.unsupported is None
    assert not server.use_bounds


def test_openslide_without_its_crop_shows_the_whole_file() -> None:
    assert not parse_server(uri_server(args=["--no-crop"])).use_bounds
    assert parse_server(uri_server()).use_bounds


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "0.5", True, None, [0.5]])
def test_a_strange_pixel_size_is_none(value: object) -> None:
    side = {"value": value, "unit": "µm"}
    calibration = {"pixelWidth": side, "pixelHeight": side}
    assert parse_server(uri_server(metadata={"pixelCalibration": calibration})).mpp is None


def test_pixels_without_micrometres_are_uncalibrated() -> None:
    assert parse_server(uri_server(metadata=metadata(4, 4, mpp=None))).mpp is None


def test_mpp_is_the_mean_of_the_frames_sides() -> None:
    calibration = {
        "pixelWidth": {"value": 0.249, "unit": "µm"},
        "pixelHeight": {"value": 0.251, "unit": "µm"},
    }
    outer = metadata(300, 400, pixelCalibration=calibration)
    assert parse_server(rotated(uri_server(), "ROTATE_90", metadata=outer)).mpp == 0.25


def test_pixels_that_are_not_square_cannot_be_used() -> None:
    calibration = {
        "pixelWidth": {"value": 0.2, "unit": "µm"},
        "pixelHeight": {"value": 0.3, "unit": "µm"},
    }
    server = parse_server(uri_server(metadata=metadata(4, 4, pixelCalibration=calibration)))
    assert server.unsupported == "its pixels are not square (0.2 x 0.3 um)"


@pytest.mark.parametrize("entry_id", ["../1", "1", -1, 1.5, True, None, 2**70, [], {}])
def test_an_id_that_could_not_name_a_file_is_refused(tmp_path: Path, entry_id: object) -> None:
    with pytest.raises(QprdError, match="no id"):
        read_project_file(write_project(tmp_path, image(entry_id)))


def test_two_images_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="id 7"):
        read_project_file(write_project(tmp_path, image(7), image(7)))


@pytest.mark.parametrize("root", ["null", "[]", "{}", '{"images": {}}', '{"images": [1]}', "1"])
def test_json_that_is_no_project_is_refused(tmp_path: Path, root: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_text(root)
    with pytest.raises(QprdError):
        read_project_file(path)


def test_projects_before_version_0_2_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "project.qpproj"
    path.write_text('{"createTimestamp": 1, "images": [{"path": "/a.svs", "name": "a"}]}')
    with pytest.raises(QprdError, match=r"0\.2"):
        read_project_file(path)


KEYS = [
    "builderType",
    "builder",
    "uri",
    "rotation",
    "region",
    "metadata",
    "args",
    "width",
    "height",
    "pixelCalibration",
    "pixelWidth",
    "value",
    "unit",
    "x",
    "y",
    "isRGB",
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner | st.sampled_from(["uri", "rotated", "cropped", "ROTATE_90", "µm"]),
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_no_server_description_crashes(server: object) -> None:
    found = parse_server(server)
    assert found.unsupported or isinstance(found.uri, str)


def test_half_a_surrogate_pair_in_names_and_metadata_is_replaced(tmp_path: Path) -> None:
    half = "a\ud83d"
    path = write_project(
        tmp_path, image(imageName=half, metadata={half: half}, serverBuilder={"uri": half})
    )
    (entry,) = read_project_file(path).entries
    assert (entry.name, entry.metadata, entry.source.uri) == ("a?", {"a?": "a?"}, "a?")
