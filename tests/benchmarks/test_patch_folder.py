"""Patch folders: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.folder import PatchImages, read_folder, read_image
from qprd.errors import QprdError
from tests.helpers.patch_folders import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "patches", 4, 3)


def test_ids_are_sorted_and_labels_follow(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    read = read_folder(folder)
    assert read.ids == ("n000", "n001", "n002", "n003", "t000", "t001", "t002")
    assert read.tumor.tolist() == [False] * 4 + [True] * 3
    assert read.splits is None
    assert read.notes == ()


def test_a_spreadsheets_csv_is_read(folder: Path) -> None:
    text = (folder / "labels.csv").read_text().replace("id,label", "Label , ID,note")
    rows = [line.split(",") for line in text.splitlines()]
    swapped = [rows[0], *([row[1], f" {row[0]}.png ", "x"] for row in rows[1:]), ["", "", ""]]
    (folder / "labels.csv").write_text(
        "\ufeff" + "\r\n".join(",".join(row) for row in swapped), encoding="utf-8"
    )
    read = read_folder(folder)
    assert [file.name for file in read.files][:2] == ["n000.png", "n001.png"]
    assert read.tumor.sum() == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "id and label are needed"),
        ("id;label\nn000;0\n", "id and label are needed"),
        ("id,label\n", "no labels after the first line"),
        ("id,label\nn000,0\nn000,1\n", "line 3.*|'n000' is there twice, first in line 2"),
        ("id,label\nn000,0\nt000,2\n", "label of 't000' is '2'"),
        ("id,label\nn000,0\nt000\n", "label of 't000' is None"),
        ("id,label\nn000,0\n../labels,1\n", "cannot be the name of an image"),
        ("id,label\nn000,0\n,1\n", "cannot be the name of an image"),
        ("id,label\nn000,0\nghost,1\n", "1 of 2 labeled patches have no image: ghost"),
        ("id,label\nn000,0\nn001,0\n", "no tumor patches"),
        ("id,label\nt000,1\n", "no normal patches"),
        ("id,label\nn000,0\nn000.png,0\nt000,1\n", "Two ids name the same image"),
        ("id,label,split\nn000,0,train\nt000,1,hold-out\n", "split of 't000' is 'hold-out'"),
        ("id,label,split\nn000,0,train\nt000,1,\n", "1 patches have a split, and 1 have none"),
        ("id,label,split\nn000,0,train\nt000,1,train\n", "split val has no normal patches"),
        ('id,label\n"n000,0\n', "Not a CSV file"),
    ],
)
def test_mistakes_are_named(folder: Path, labels: str, message: str) -> None:
    (folder / "labels.csv").write_text(labels)
    with pytest.raises(QprdError, match=message) as caught:
        read_folder(folder)
    assert "labels.csv" in str(caught.value) or "images" in str(caught.value)


def test_what_is_no_patch_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(QprdError, match=r"labels cannot be read.*"):
        read_folder(tmp_path / "nowhere")
    (folder / "labels.csv").write_bytes("id,label\nn000,0\nö,1\n".encode("latin-1"))
    with pytest.raises(QprdError, match="not UTF-8"):
        read_folder(folder)
    (folder / "labels.csv").write_text("id,label\nn000,0\nt000,1\n")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(QprdError, match="images cannot be listed"):
        read_folder(folder)


def test_an_id_with_two_images_is_refused(folder: Path) -> None:
    Image.new("RGB", (32, 32)).save(folder / "images" / "n000.jpg")
    with pytest.raises(QprdError, match=r"could be any of n000.jpg, n000.png"):
        read_folder(folder)


def test_copies_are_used_once_and_contradictions_never(folder: Path) -> None:
    images = folder / "images"
    (images / "n001.png").write_bytes((images / "n000.png").read_bytes())
    (images / "t000.png").write_bytes((images / "n002.png").read_bytes())
    Image.new("RGB", (32, 32)).save(images / "unlabeled.png")
    read = read_folder(folder)
    assert read.ids == ("n000", "n003", "t001", "t002")
    assert read.notes == (
        "1 images are copies of others and are not used",
        "2 images are there with both labels and are not used",
        "1 images have no line in labels.csv and are not used",
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("size", [(32, 32), (96, 96), (40, 64), (7, 5)])
def test_images_of_any_size_and_kind_become_rgb_squares(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    Image.new(mode, size, 100 if mode in "LP" else (10, 20, 30)).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == np.uint8
    if mode.startswith("RGB"):
        assert pixels[:, 20, 20].tolist() == [10, 20, 30]


def test_the_middle_of_an_oblong_image_is_taken(tmp_path: Path) -> None:
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 200
    Image.fromarray(wide).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif", 32) == 200).all()


@pytest.mark.parametrize("kind", ["text", "truncated", "16 bit", "slide"])
def test_an_image_that_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.png"
    if kind == "text":
        file.write_text("no image")
    elif kind == "truncated":
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:3000])
    elif kind == "16 bit":
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(file)
    else:
        Image.new("L", (5000, 10)).save(file)
    with pytest.raises(QprdError) as caught:
        read_image(file, 32)
    assert str(file) in str(caught.value)


def test_images_come_by_number_and_are_the_same_when_read_again(folder: Path) -> None:
    read = read_folder(folder)
    images = PatchImages(read, 32)
    first = images[np.array([5, 0])]
    assert first.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(first[1], read_image(folder / "images" / "n000.png", 32))
    np.testing.assert_array_equal(images[np.array([0, 5])][::-1], first)
