"""The fit of the largest teacher's features."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np

from qprd.model.fisher import ClassStatistics
from qprd.sampling.dataset import SYMMETRIES
from speed_rows.row import Row, Setup

#: Of UNI2-h: means and mean squares of 1,536 channels in four depths.
_FEATURES = 12_288
_NORMAL, _TUMOR = 400, 30
_BATCH = 32
_LIMIT_S = 60.0


def measure(_: Setup) -> Iterator[Row]:
    """Random features; the networks before them are measured elsewhere."""
    tracemalloc.start()
    _fit()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    started = time.perf_counter()
    _fit()
    spent = time.perf_counter() - started
    yield Row(
        f"closed form of {_FEATURES:,} features",
        f"{_LIMIT_S:g} s",
        "<=",
        1.0,
        spent / _LIMIT_S,
        f"{spent:.1f} s and {peak / 2**30:.2f} GiB beside the teacher; {_NORMAL} + {_TUMOR} "
        f"patches in {SYMMETRIES} symmetries",
    )


def _fit() -> None:
    rng = np.random.default_rng(0)
    y_true = np.arange(_NORMAL + _TUMOR) >= _NORMAL
    head = ClassStatistics()
    for _ in range(SYMMETRIES):
        for start in range(0, len(y_true), _BATCH):
            own = y_true[start : start + _BATCH]
            head.add(rng.normal(size=(len(own), _FEATURES)) + 0.1 * own[:, np.newaxis], own)
    head.classifier()
