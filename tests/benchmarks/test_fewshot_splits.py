"""Few-shot splits: disjoint, nested, 1:1, one test set for a seed, sizes that fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.folder import PatchFolder
from harness.splits import SplitSizes, draw_split, plan_sizes
from qprd.errors import QprdError


def _folder(normal: int, tumor: int, splits: tuple[str, ...] | None = None) -> PatchFolder:
    ids = tuple(f"p{i:05d}" for i in range(normal + tumor))
    label = np.arange(normal + tumor) >= normal
    return PatchFolder(Path("x"), ids, tuple(map(Path, ids)), label, splits, ())  # type: ignore[arg-type]


def _own_splits(normal: tuple[int, int, int], tumor: tuple[int, int, int]) -> PatchFolder:
    names = [
        split
        for counts in (normal, tumor)
        for split, count in zip(("train", "val", "test"), counts, strict=True)
        for _ in range(count)
    ]
    return _folder(sum(normal), sum(tumor), tuple(names))


@given(
    st.integers(5, 900), st.integers(5, 900), st.integers(1, 60), st.integers(0, 60), st.integers(0)
)
def test_splits_are_disjoint_and_held_out_ones_are_balanced(
    n_normal: int, n_tumor: int, normal: int, tumor: int, seed: int
) -> None:
    folder = _folder(n_normal, n_tumor)
    try:
        sizes = plan_sizes(folder, normal=normal, tumor=tumor)
    except QprdError:
        assert min(n_normal - normal, n_tumor - tumor) < 2
        return
    split = draw_split(folder, sizes, seed)
    everything = np.concatenate([split.train, split.val, split.test])
    assert len(np.unique(everything)) == len(everything)
    counts = Counter(folder.tumor[split.train].tolist())
    assert (counts[False], counts[True]) == (normal, tumor)
    for part, size, most in ((split.val, sizes.val, 100), (split.test, sizes.test, 370)):
        assert 1 <= size <= most
        assert Counter(folder.tumor[part].tolist()) == {False: size, True: size}


@pytest.mark.parametrize("tumor", [0, 3, 9, 30, 90])
def test_smaller_trainings_are_part_of_larger_ones_and_share_the_test(tumor: int) -> None:
    folder = _folder(683, 431)
    small, large = (plan_sizes(folder, normal=n, tumor=t) for n, t in ((100, tumor), (300, 90)))
    assert (small.val, small.test) == (large.val, large.test)
    a, b = draw_split(folder, small, 7), draw_split(folder, large, 7)
    assert set(a.train) <= set(b.train)
    assert a.test.tolist() == b.test.tolist()
    assert a.val.tolist() == b.val.tolist()


def test_seeds_give_other_splits_and_the_same_seed_the_same() -> None:
    folder = _folder(200, 100)
    sizes = plan_sizes(folder)
    first, again, other = (draw_split(folder, sizes, seed) for seed in (0, 0, 1))
    assert first.test.tolist() == again.test.tolist()
    assert first.train.tolist() == again.train.tolist()
    assert set(first.test.tolist()) != set(other.test.tolist())


@pytest.mark.parametrize(
    ("there", "asked", "sizes"),
    [
        # the sizes of the first measurement: 900 + 90, 100 + 100, 370 + 370
        ((1370, 560), (900, 90), SplitSizes(900, 90, 100, 370)),
        ((5000, 5000), (900, 90), SplitSizes(900, 90, 100, 370)),
        ((683, 431), (400, 90), SplitSizes(400, 90, 60, 223)),
        ((683, 431), (400, 0), SplitSizes(400, 0, 60, 223)),
        ((683, 431), (None, None), SplitSizes(341, 90, 73, 268)),
        ((12, 8), (6, 3), SplitSizes(6, 3, 1, 4)),
        ((3, 3), (1, 1), SplitSizes(1, 1, 1, 1)),
    ],
)
def test_sizes_fit_what_is_there(
    there: tuple[int, int], asked: tuple[int | None, int | None], sizes: SplitSizes
) -> None:
    assert plan_sizes(_folder(*there), normal=asked[0], tumor=asked[1]) == sizes


def test_sizes_that_are_asked_for_are_kept() -> None:
    sizes = plan_sizes(_folder(100, 100), normal=50, tumor=5, val=10, test=40)
    assert sizes == SplitSizes(50, 5, 10, 40)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"normal": 99, "tumor": 3}, "at most --normal 98"),
        ({"normal": 50, "tumor": 5, "val": 10, "test": 41}, "at most --normal 49"),
        ({"tumor": -1}, "--tumor"),
        ({"normal": 0}, "--normal"),
        ({"val": 0}, "--val"),
    ],
)
def test_sizes_that_cannot_be_had_are_refused(asked: dict[str, int], message: str) -> None:
    with pytest.raises(QprdError) as caught:
        plan_sizes(_folder(100, 100), **asked)
    assert message in str(caught.value)


def test_a_folders_own_splits_are_honored() -> None:
    folder = _own_splits((40, 6, 9), (12, 5, 11))
    sizes = plan_sizes(folder, normal=30, tumor=3)
    assert sizes == SplitSizes(30, 3, 5, 9)
    splits = [draw_split(folder, sizes, seed) for seed in (0, 1)]
    for split in splits:
        for name in ("train", "val", "test"):
            assert {folder.splits[i] for i in getattr(split, name)} == {name}  # type: ignore[index]
    assert set(splits[0].train.tolist()) != set(splits[1].train.tolist())
    with pytest.raises(QprdError, match="has 12"):
        plan_sizes(folder, tumor=13)
