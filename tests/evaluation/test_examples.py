from __future__ import annotations

import doctest

import pytest

from qprd.evaluation import metrics, reliability, thresholds


@pytest.mark.parametrize("module", [metrics, reliability, thresholds], ids=lambda m: m.__name__)
def test_examples_in_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0
