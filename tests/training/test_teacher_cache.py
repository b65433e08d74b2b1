from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qprd.sampling.dataset import symmetric
from qprd.training import teacher_cache
from qprd.training.teacher_cache import TeacherCache

PATCHES = 6
SHAPES = ((5, 4, 4), (2, 2, 2), (3, 1, 1))
VIEW_BYTES = 4 * (5 * 16 + 2 * 4 + 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (PATCHES, 3, 4, 4), dtype=np.uint8)


def teacher(images: torch.Tensor) -> list[torch.Tensor]:
    """Maps that differ between any two views."""
    x = images.double().flatten(1)
    maps = []
    for number, (channels, height, width) in enumerate(SHAPES):
        weights = torch.linspace(0.1, 1 + number, x.shape[1] * channels * height * width)
        maps.append(
            (x @ weights.double().sin().view(x.shape[1], -1))
            .float()
            .view(-1, channels, height, width)
        )
    return maps


def cache(views: float, *, symmetries: int = 8, folder: Path | None = None) -> TeacherCache:
    return TeacherCache(
        teacher,
        SHAPES,
        patches=PATCHES,
        symmetries=symmetries,
        budget_bytes=int(views * VIEW_BYTES),
        folder=folder,
    )


def images_of(patches: NDArray[np.int64], symmetries: NDArray[np.int64]) -> torch.Tensor:
    views = [symmetric(IMAGES[i], s) for i, s in zip(patches, symmetries, strict=True)]
    return torch.from_numpy(np.stack(views))


def check(kept: TeacherCache, patches: list[int], symmetries: list[int]) -> None:
    i, s = np.array(patches), np.array(symmetries)
    images = images_of(i, s)
    for found, expected in zip(kept.maps(images, i, s), teacher(images), strict=True):
        torch.testing.assert_close(found, expected)


steps = st.lists(
    st.lists(
        st.tuples(st.integers(0, PATCHES - 1), st.integers(0, 7)),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    min_size=1,
    max_size=12,
)


@given(steps, st.integers(0, 60), st.sampled_from([1, 8]))
def test_maps_are_those_of_the_teacher_whatever_is_kept(
    batches: list[list[tuple[int, int]]], views: int, symmetries: int
) -> None:
    kept = cache(views, symmetries=symmetries)
    asked = 0
    for batch in batches:
        check(kept, [patch for patch, _ in batch], [symmetry for _, symmetry in batch])
        asked += len(batch)
    repeatable = [view for batch in batches for view in batch if view[1] < symmetries]
    expected = asked - (len(repeatable) - len(set(repeatable)))
    if views >= len(set(repeatable)):
        assert kept.computed == expected
    assert kept.computed >= expected
    assert kept.size_bytes <= views * VIEW_BYTES


def test_maps_are_in_files_where_there_is_a_folder(tmp_path: Path) -> None:
    kept = cache(5, folder=tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == kept.size_bytes
    assert "on disk for 10% of views" in str(kept)
    for _ in range(2):
        check(kept, [0, 1, 2], [0, 3, 7])
    assert kept.computed == 3


def test_a_quarter_of_the_memory_is_taken_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teacher_cache, "_memory_bytes", lambda: 8 * VIEW_BYTES)
    assert cache(5).size_bytes == 2 * VIEW_BYTES
    assert "in memory" in str(cache(5))


def test_half_of_the_free_disk_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kept in ((100, 0), (8 * VIEW_BYTES, 4)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert cache(40, folder=tmp_path).size_bytes == kept * VIEW_BYTES


def test_maps_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache(5, folder=tmp_path)
    check(first, [0, 1, 2], [0, 3, 7])
    state = first.state()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    again = cache(5, folder=tmp_path)
    again.restore(state)
    check(again, [0, 1, 2, 4], [0, 3, 7, 1])
    assert again.computed == 1
    with pytest.raises(ValueError, match="of another training"):
        cache(5).restore(state[:8])
