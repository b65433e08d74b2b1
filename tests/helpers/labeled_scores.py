"""Labels and scores for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

#: Few distinct values, so that ties within and between the classes are common.
samples = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(0, 5).map(float), st.floats(0, 6))),
    min_size=1,
    max_size=30,
)


def split(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels and scores as arrays."""
    return np.array([y for y, _ in pairs]), np.array([s for _, s in pairs])
