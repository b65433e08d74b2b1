"""Many simulated processes score each slide once, and none is lost with those that die."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranks import simulate


@pytest.mark.parametrize(("ranks", "deaths"), [(1, 0), (8, 0), (8, 3)])
def test_every_slide_is_scored_once_whoever_dies(tmp_path: Path, ranks: int, deaths: int) -> None:
    outcome = simulate(tmp_path, slides=60, ranks=ranks, deaths=deaths)
    assert (outcome.scored, outcome.lost) == (60, 0)
    assert 1 <= outcome.makespan < 3
