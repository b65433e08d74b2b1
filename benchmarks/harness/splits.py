"""Few-shot splits of a patch folder: disjoint, fixed by the seed, nested, test and validation 1:1.

Each label's patches are put in an order that only the seed and their ids determine. Test patches
are taken from its front, validation patches after them, training patches from its back: the first
3 tumor patches are among the first 9, and one seed tests on the same patches whatever is trained
on.

How many are tested and validated on depends on what is there: up to 370 and 100 of each label.
Kept for training are what is asked for and, where possible, half of the normal patches and 90
tumor patches (at most a quarter), so that smaller trainings share the test set. Where less than
370 + 100 of a label are left after that, validation and test shrink in this proportion. A folder
that states splits itself keeps them; the seed then chooses among the training patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.folder import PatchFolder
from qprd.errors import QprdError
from qprd.sampling.sampler import patch_rng
from qprd.sampling.splits import Split

MAX_TEST = 370
MAX_VAL = 100
#: Kept for training where a folder can afford it.
_ROOM_NORMAL_SHARE = 0.5
_ROOM_TUMOR = 90
_ROOM_TUMOR_SHARE = 0.25
#: Defaults of ``--normal`` and ``--tumor``.
_DEFAULT_NORMAL = 900
_DEFAULT_TUMOR = 90

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SplitSizes:
    """How many patches are used.

    Attributes:
        normal: Normal patches to train on.
        tumor: Tumor patches to train on.
        val: Validation patches of each label.
        test: Test patches of each label.
    """

    normal: int
    tumor: int
    val: int
    test: int


@dataclass(frozen=True)
class FewShotSplit:
    """Numbers of patches in the folder, none of them twice."""

    train: Indices
    val: Indices
    test: Indices


def plan_sizes(
    folder: PatchFolder,
    *,
    normal: int | None = None,
    tumor: int | None = None,
    val: int | None = None,
    test: int | None = None,
) -> SplitSizes:
    """Choose how many patches to train, validate and test on; see this module.

    Args:
        folder: What there is.
        normal: None: up to 900, leaving at least half.
        tumor: None: up to 90, leaving at least three quarters.
        val: Of each label; None: as many as fit, up to 100.
        test: Of each label; None: as many as fit, up to 370.

    Raises:
        QprdError: there are too few patches.
    """
    for option, count, least in (
        ("--normal", normal, 1),
        ("--tumor", tumor, 0),
        ("--val", val, 1),
        ("--test", test, 1),
    ):
        if count is not None and count < least:
            raise QprdError(f"{count} is too few; {least} is the least.", where=option)
    if folder.splits is not None:
        return _sizes_of_pools(folder, normal, tumor, val, test)
    n_normal, n_tumor = int((~folder.tumor).sum()), int(folder.tumor.sum())
    room_normal = int(n_normal * _ROOM_NORMAL_SHARE)
    room_tumor = min(_ROOM_TUMOR, int(n_tumor * _ROOM_TUMOR_SHARE))
    normal = min(_DEFAULT_NORMAL, max(room_normal, 1)) if normal is None else normal
    tumor = min(_DEFAULT_TUMOR, room_tumor) if tumor is None else tumor
    left = min(n_normal - max(normal, room_normal), n_tumor - max(tumor, room_tumor))
    strict = min(n_normal - normal, n_tumor - tumor)
    wanted = (val or 1) + (test or 1)
    if left < wanted:  # no room to spare
        left = strict
    if strict < wanted:
        raise QprdError(
            f"The folder has {n_normal} normal and {n_tumor} tumor patches; after {normal} + "
            f"{tumor} for training, {wanted} of each must be left for validation and test.",
            where=str(folder.path),
            fix=f"Take at most --normal {max(n_normal - wanted, 0)} "
            f"--tumor {max(n_tumor - wanted, 0)}.",
        )
    if val is None:
        share = round(left * MAX_VAL / (MAX_VAL + MAX_TEST))
        val = min(MAX_VAL, max(1, min(share, left - (test or 1))))
    if test is None:
        test = min(MAX_TEST, left - val)
    return SplitSizes(normal, tumor, val, test)


def _sizes_of_pools(
    folder: PatchFolder, normal: int | None, tumor: int | None, val: int | None, test: int | None
) -> SplitSizes:
    train_normal, train_tumor = (len(_pool(folder, "train", label)) for label in (False, True))
    normal = min(_DEFAULT_NORMAL, train_normal) if normal is None else normal
    tumor = min(_DEFAULT_TUMOR, train_tumor) if tumor is None else tumor
    held_out = {
        split: min(len(_pool(folder, split, False)), len(_pool(folder, split, True)))
        for split in ("val", "test")
    }
    val = min(MAX_VAL, held_out["val"]) if val is None else val
    test = min(MAX_TEST, held_out["test"]) if test is None else test
    for option, asked, there in (
        ("--normal", normal, train_normal),
        ("--tumor", tumor, train_tumor),
        ("--val", val, held_out["val"]),
        ("--test", test, held_out["test"]),
    ):
        if asked > there:
            raise QprdError(
                f"{asked} patches are asked for, and the folder's own split has {there}.",
                where=f"{option}, {folder.path}",
                fix=f"Take at most {option} {there}.",
            )
    return SplitSizes(normal, tumor, val, test)


def draw_split(folder: PatchFolder, sizes: SplitSizes, seed: int) -> FewShotSplit:
    """Choose the patches for a seed; see this module.

    Args:
        folder: With enough patches, see `plan_sizes`.
        sizes: How many.
        seed: 0 or more.
    """
    train, val, test = [], [], []
    for label, count in ((False, sizes.normal), (True, sizes.tumor)):
        orders = {split: _order(folder, split, label, seed) for split in ("train", "val", "test")}
        test.append(orders["test"][: sizes.test])
        start = 0 if folder.splits is not None else sizes.test
        val.append(orders["val"][start : start + sizes.val])
        train.append(orders["train"][::-1][:count])
    return FewShotSplit(np.concatenate(train), np.concatenate(val), np.concatenate(test))


def left_over(folder: PatchFolder, split: FewShotSplit) -> Indices:
    """Patches for training that a seed did not choose, in a folder that states splits itself.

    Raises:
        QprdError: it states none, or none of a label are left.
    """
    pool = np.array([] if folder.splits is None else np.array(folder.splits) == "train", bool)
    left = np.setdiff1d(np.flatnonzero(pool), split.train)
    if len(set(folder.tumor[left].tolist())) < 2:
        raise QprdError(
            "The training leaves no patches of both labels on slides of its own.",
            where=str(folder.path),
            fix="Take a folder whose labels.csv states splits, and a smaller --normal and --tumor.",
        )
    return left


def _pool(folder: PatchFolder, split: Split, tumor: bool) -> Indices:
    chosen = folder.tumor == tumor
    if folder.splits is not None:
        chosen &= np.array(folder.splits) == split
    return np.flatnonzero(chosen)


def _order(folder: PatchFolder, split: Split, tumor: bool, seed: int) -> Indices:
    """The patches of a label that a split may have, shuffled: the same on every machine."""
    pool = _pool(folder, split, tumor)
    random = patch_rng(seed, "fewshot", "tumor" if tumor else "normal").random(len(pool))
    return pool[np.argsort(random, kind="stable")]
