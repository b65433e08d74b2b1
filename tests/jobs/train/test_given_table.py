"""A training on a patch table that is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qprd.bundle.names import PATCHES_FILE
from qprd.errors import QprdError
from tests.helpers.drawn_project import (
    edit,
    train,
)


def test_a_table_from_an_earlier_bundle_gives_the_same_training(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    table = tmp_path / "shared.csv"
    table.write_bytes((bundle / PATCHES_FILE).read_bytes())
    summary = train(trained_project, patches=table)
    assert (summary.bundle / PATCHES_FILE).read_bytes() == table.read_bytes()
    model = "model.safetensors"
    assert (summary.bundle / model).read_bytes() == (bundle / model).read_bytes()


@pytest.mark.parametrize(
    ("edit_line", "message"),
    [
        (lambda line: line.replace(",0.5,", ",0.25,"), "is for 0.25 um/px"),
        (lambda line: "9" + line[1:], r"first.tif \(id 9\); no usable slide"),
        # Without a fingerprint, the name decides.
        (lambda line: line[:-32].replace("first.tif", "other.tif"), "of the slide other.tif"),
        (lambda line: line[:-32] + "0" * 32, "first.tif: its file is not what it was"),
        (lambda line: line[:-32].replace("first.tif", "other.tif") + "0" * 32, "another slide"),
        (lambda line: line[:-32] + "x" * 32, "fingerprint is 'xxx"),
        (lambda line: line + ",extra", "11 values instead of 10"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    trained_project: Path, tmp_path: Path, edit_line: Callable[[str], str], message: str
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    lines = (bundle / PATCHES_FILE).read_text().splitlines()
    table = tmp_path / "table.csv"
    table.write_text("\n".join([lines[0], edit_line(lines[1]), *lines[2:]]))
    with pytest.raises(QprdError, match=message):
        train(trained_project, patches=table)


def test_patches_of_another_size_than_the_models_are_refused(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    with pytest.raises(QprdError, match="px"):
        train(trained_project, patches=bundle / PATCHES_FILE, patch_px=96)


def test_patches_outside_their_slide_are_refused(trained_project: Path, tmp_path: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    lines = (bundle / PATCHES_FILE).read_text().splitlines()
    cells = lines[1].split(",")
    cells[2] = "620"
    table = tmp_path / "table.csv"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    with pytest.raises(QprdError, match="outside"):
        train(trained_project, patches=table)


def test_a_table_that_is_not_there_is_said(project: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(QprdError) as caught:
            train(project, patches=place)
        assert caught.value.where == str(place)


def test_a_table_that_contradicts_the_metadata_is_refused(
    trained_project: Path, tmp_path: Path
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    text = (bundle / PATCHES_FILE).read_text()
    swapped = text.replace(",train", ",?").replace(",val", ",train").replace(",?", ",val")
    (tmp_path / "swapped.csv").write_text(swapped)
    with pytest.raises(QprdError, match="its metadata in the project say"):
        train(trained_project, patches=tmp_path / "swapped.csv")


def test_a_table_of_another_slide_is_refused_whatever_its_name(
    project: Path, tmp_path: Path
) -> None:
    table = train(project).bundle / PATCHES_FILE
    text = table.read_text()
    other = tmp_path / "other.csv"
    first, second = (text.splitlines()[line].rpartition(",")[2] for line in (1, -1))
    assert first != second
    other.write_text(text.replace(first, second))
    with pytest.raises(QprdError, match="its file is not what it was"):
        train(project, patches=other)
    edit(project, lambda root: root["images"][0].update(imageName="renamed"))
    assert train(project, patches=table).slides["train"] == ["renamed"]
