from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.files.jsonfile import parse_json, read_json


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "nonsense", "[" * 200_000, '{"a":' * 200_000, "1" * 10_000],
    ids=["empty", "open", "comma", "word", "deep list", "deep object", "long number"],
)
def test_what_is_not_json_is_an_error_of_the_user(text: str) -> None:
    with pytest.raises(QprdError, match="This is not a duck") as caught:
        parse_json(text, what="a duck")
    assert "sys." not in str(caught.value)


def test_of_repeated_keys_the_last_counts() -> None:
    assert parse_json('{"a": 1, "a": 2}', what="x") == {"a": 2}


def test_a_small_file_takes_little_memory_however_large_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text("[1, 2]")
    tracemalloc.start()
    assert read_json(path, what="x", limit_bytes=2**30) == [1, 2]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


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


@pytest.mark.parametrize("name", ["list.json.gz", "LIST.JSON.GZ"])
def test_a_compressed_file_is_read_up_to_the_limit(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"[1,") + gzip.compress(b" 2]"))
    assert read_json(path, what="x", limit_bytes=50) == [1, 2]
    path.write_bytes(gzip.compress(bytes(2**28)))
    tracemalloc.start()
    with pytest.raises(QprdError, match="too large"):
        read_json(path, what="x", limit_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"[1, 2]")[:-9], b"[1, 2]", gzip.compress(b"")[:10] + b"\xff" * 20],
    # gzip writes the time, which would be in the name of the test.
    ids=["cut off", "not compressed", "broken blocks"],
)
def test_a_damaged_compressed_file_is_an_error_of_the_user(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.json.gz"
    path.write_bytes(content)
    with pytest.raises(QprdError, match="not a whole gzip file"):
        read_json(path, what="x", limit_bytes=50)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, what="x", limit_bytes=50) == [1]
