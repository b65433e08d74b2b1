"""Values that are kept in a temporary file."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import Point

from qprd.files.packed import PackedValues

OPEN_FILES = Path("/proc/self/fd")


def test_a_value_comes_back_as_it_was() -> None:
    values = PackedValues[Any]()
    values["1"] = np.eye(50, dtype=bool), Point(1, 2).buffer(3)
    values["2"] = "another"
    mask, outline = values["1"]
    assert (mask == np.eye(50)).all()
    assert outline == Point(1, 2).buffer(3)
    assert values["1"] is values["1"]
    assert list(values) == ["1", "2"]
    with pytest.raises(KeyError):
        values["3"]


def test_many_large_values_take_little_memory() -> None:
    random = np.random.default_rng(0)
    values = PackedValues[bytes]()
    tracemalloc.start()
    for name in map(str, range(40)):
        values[name] = random.bytes(1_000_000)  # which compression makes no smaller
    assert len(set(values.values())) == 40
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Four of them stay in memory.
    assert left < 5e6


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="nothing lists open files here")
def test_the_file_goes_with_its_values() -> None:
    before = len(list(OPEN_FILES.iterdir()))
    values = PackedValues[int]()
    values["1"] = 1
    assert values["1"] == 1
    assert len(list(OPEN_FILES.iterdir())) == before + 1
    del values
    assert len(list(OPEN_FILES.iterdir())) == before
