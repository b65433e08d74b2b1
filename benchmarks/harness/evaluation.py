"""Fit a method on each seed's split, choose a threshold on validation, measure on test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.folder import PatchImages
from harness.splits import FewShotSplit
from methods.interface import Labels, Method
from qprd.errors import ExitCode, QprdError
from qprd.evaluation.metrics import accuracy, auroc
from qprd.evaluation.operating_point import accuracy_threshold


@dataclass(frozen=True)
class SeedResult:
    """One training and its test.

    Attributes:
        seed: Of the split and the training.
        auroc: On test patches.
        accuracy: On test patches, at the threshold.
        threshold: Chosen on validation patches for the best accuracy there.
        val_auroc: On validation patches, which also chose the epoch of some methods.
        val_accuracy: On validation patches, at the threshold.
        seconds: Of fitting and scoring.
    """

    seed: int
    auroc: float
    accuracy: float
    threshold: float
    val_auroc: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; None where there is none."""

    mean: float | None
    sd: float | None
    seeds: tuple[float, ...]


def run_seed(
    build: Callable[[], Method],
    images: PatchImages,
    tumor: Labels,
    split: FewShotSplit,
    seed: int,
) -> SeedResult:
    """One training and its test.

    Test labels come in after fitting, choosing and scoring are over.

    Args:
        build: Makes the method, not yet fitted.
        images: Patches by number.
        tumor: Label of every patch of the folder.
        split: Which patches are for what.
        seed: For the method.

    Raises:
        QprdError: the training failed, or the scores are not finite.
    """
    started = time.perf_counter()
    method = build()
    val_images = images[split.val]
    method.fit(images[split.train], tumor[split.train], val_images, tumor[split.val], seed=seed)
    val_scores = method.score(val_images)
    test_scores = method.score(images[split.test])
    seconds = time.perf_counter() - started
    if not (np.isfinite(val_scores).all() and np.isfinite(test_scores).all()):
        raise QprdError(
            f"The scores of seed {seed} are not finite.",
            fix="Train with a lower --lr.",
            exit_code=ExitCode.FAILED,
        )
    threshold = accuracy_threshold(tumor[split.val], val_scores)
    val_auroc = auroc(tumor[split.val], val_scores)
    test_auroc = auroc(tumor[split.test], test_scores)
    # Both splits are 1:1, so none of these can be undefined.
    assert threshold is not None
    assert val_auroc is not None
    assert test_auroc is not None
    test_accuracy = accuracy(tumor[split.test], test_scores, threshold.value)
    assert test_accuracy is not None
    return SeedResult(
        seed,
        test_auroc,
        test_accuracy,
        threshold.value,
        val_auroc,
        threshold.accuracy,
        seconds,
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1); a single value has no deviation."""
    if not values:
        return Spread(None, None, ())
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, tuple(values))
