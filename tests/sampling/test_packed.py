from __future__ import annotations

import tracemalloc

import numpy as np
from shapely.geometry import Point

from qprd.sampling.packed import Packed


def test_a_value_comes_back_as_it_was() -> None:
    mask, outline = np.eye(50, dtype=bool), Point(1, 2).buffer(3)
    found = Packed((mask, outline)).unpack()
    assert (found[0] == mask).all()
    assert found[1] == outline


def test_many_large_values_take_little_memory() -> None:
    tracemalloc.start()
    packed = []
    for size in range(1, 40):
        mask = np.zeros((1000, 1000), dtype=bool)
        mask[:size] = True
        packed.append(Packed(mask))
    assert [int(one.unpack().sum()) // 1000 for one in packed] == list(range(1, 40))
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Four of them are kept unpacked.
    assert left < 6e6
