from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.qupath.jsonfile import parse_json, read_json, write_atomically


def accept(_: Path) -> None:
    return None


def mounted(folder: Path, *options: str) -> None:
    """Mount a tmpfs on the folder, or skip where that is not permitted."""
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    mounted(folder, "-o", "size=64k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    mounted(folder, "-o", "size=64k")
    (folder / "old.json").write_text("old")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_writes_the_text_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    write_atomically(target, '{"mü": 1}', root=tmp_path, check=accept)
    assert read_json(target, what="x", limit_bytes=100) == {"mü": 1}
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_failed_check_leaves_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def refuse(written: Path) -> None:
        assert written.read_text() == "new"
        raise QprdError("differs")

    with pytest.raises(QprdError, match="differs"):
        write_atomically(target, "new", root=tmp_path, check=refuse)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupt_leaves_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, "new", root=tmp_path, check=interrupt)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "project"
    outside.mkdir()
    root.mkdir()
    (outside / "a.json").write_text("old")
    (root / "folder").symlink_to(outside)
    (root / "a.json").symlink_to(outside / "a.json")
    for target in (root / "folder" / "b.json", root / "a.json", root / ".." / "b.json"):
        with pytest.raises(QprdError, match="outside the project"):
            write_atomically(target, "new", root=root, check=accept)
    assert [path.name for path in outside.iterdir()] == ["a.json"]
    assert (outside / "a.json").read_text() == "old"


def test_a_full_disk_leaves_the_earlier_file(small_disk: Path) -> None:
    target = small_disk / "a.json"
    target.write_text("old")
    with pytest.raises(QprdError, match="disk is full"):
        write_atomically(target, "x" * 200_000, root=small_disk, check=accept)
    assert target.read_text() == "old"
    assert [path.name for path in small_disk.iterdir()] == ["a.json"]


def test_a_read_only_folder_is_named(read_only_disk: Path) -> None:
    with pytest.raises(QprdError, match="cannot be written") as caught:
        write_atomically(read_only_disk / "old.json", "new", root=read_only_disk, check=accept)
    assert str(read_only_disk) in str(caught.value)
    assert (read_only_disk / "old.json").read_text() == "old"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "nonsense", "[" * 200_000, '{"a":' * 200_000, "1" * 10_000 + "x"],
    ids=["empty", "open", "comma", "word", "deep list", "deep object", "long number"],
)
def test_what_is_not_json_is_an_error_of_the_user(text: str) -> None:
    with pytest.raises(QprdError, match="This is not a duck"):
        parse_json(text, what="a duck")


def test_of_repeated_keys_the_last_counts() -> None:
    assert parse_json('{"a": 1, "a": 2}', what="x") == {"a": 2}


def test_refuses_large_binary_and_missing_files(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.json", tmp_path / "binary.json"
    large.write_text("[" + "1," * 100 + "1]")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QprdError, match="too large"):
        read_json(large, what="x", limit_bytes=50)
    with pytest.raises(QprdError, match="not UTF-8"):
        read_json(binary, what="x", limit_bytes=50)
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(QprdError, match="no such file"):
            read_json(missing, what="x", limit_bytes=50)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, what="x", limit_bytes=50) == [1]
