from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

import speed
from speed_rows import waits
from speed_rows.row import Row, Setup, seconds


@pytest.mark.parametrize(
    ("sense", "ratio", "kept"),
    [
        (">=", 2.0, True),
        (">=", 1.9, False),
        ("<=", 2.0, True),
        ("<=", 2.1, False),
        (">=", None, None),
    ],
)
def test_a_row_says_whether_its_target_is_kept(sense, ratio, kept) -> None:  # type: ignore[no-untyped-def]
    assert Row("what", "against", sense, 2.0, ratio, "detail").ok is kept


def test_ways_are_timed_in_turns_after_one_that_does_not_count() -> None:
    calls: list[str] = []
    found = seconds(lambda: calls.append("a"), lambda: calls.append("b"), repeats=2)
    assert calls == ["a", "b"] * 3
    assert all(0 <= spent < float("inf") for spent in found)


@pytest.mark.parametrize("name", speed.ROWS)
def test_every_module_of_rows_can_be_measured(name: str) -> None:
    assert callable(importlib.import_module(f"speed_rows.{name}").measure)


def test_the_table_and_the_file_for_machines_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(setup: Setup):  # type: ignore[no-untyped-def]
        assert list(setup.folder.iterdir()) == []
        yield Row("a", "b", ">=", 1.5, 1.25, "5 s; 4 s")
        yield Row("c", "d", "<=", 2.0, None, "needs a QuPath")

    monkeypatch.setattr(waits, "measure", measure)
    file = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed.py", "--only", "waits", "--json", str(file)])
    speed.main()
    printed = capsys.readouterr().out
    assert "| a | b | 1.25 | >= 1.5 | **no** | 5 s; 4 s |" in printed
    assert "| c | d | - | <= 2 | - | needs a QuPath |" in printed
    assert json.loads(file.read_text()) == [
        {
            "what": "a",
            "against": "b",
            "ratio": 1.25,
            "target": ">= 1.5",
            "ok": False,
            "detail": "5 s; 4 s",
        },
        {
            "what": "c",
            "against": "d",
            "ratio": None,
            "target": "<= 2",
            "ok": None,
            "detail": "needs a QuPath",
        },
    ]
