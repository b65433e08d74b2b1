from __future__ import annotations

import os
from itertools import pairwise

import pytest
import torch

from qprd.scoring.fields import HALO_PX
from qprd.scoring.memory import cores_px, free_bytes


def test_cores_grow_with_the_memory_and_can_be_halved() -> None:
    largest = [cores_px(free, 400.0)[-1] for free in (0, 1 << 28, 1 << 30, 1 << 32, 1 << 40)]
    assert largest == sorted(largest)
    assert largest[0] < largest[2] < largest[-1]
    for free in (0, 1 << 30, 1 << 40):
        edges = cores_px(free, 400.0)
        assert all(2 * a <= b < 2 * a + 64 for a, b in pairwise(edges))
        assert not any(edge % 32 for edge in edges)
        assert edges[0] > 0
    edge = cores_px(1 << 32, 400.0)[-1] + 2 * HALO_PX
    assert edge**2 * 400 < 1 << 32


def test_weights_take_their_part_of_a_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1 << 40}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    cpu = torch.device("cpu")
    assert free_bytes(cpu, 0) - free_bytes(cpu, 1 << 29) == 1 << 29
    assert free_bytes(cpu, 1 << 40) == 0
    sizes["SC_PHYS_PAGES"] = 1 << 31
    assert free_bytes(cpu, 1 << 29) == (1 << 30) - (1 << 29)


def test_a_mac_that_is_full_gets_the_smallest_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1 << 30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1 << 31)
    free = free_bytes(torch.device("mps"), 0)
    assert cores_px(free, 400.0) == cores_px(0, 400.0)


def test_the_size_of_fields_does_not_depend_on_what_else_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def sysconf(name: str) -> int:
        asked.append(name)
        return 1 << 16

    monkeypatch.setattr(os, "sysconf", sysconf)
    free_bytes(torch.device("cpu"), 0)
    assert set(asked) <= {"SC_PHYS_PAGES", "SC_PAGE_SIZE"}
