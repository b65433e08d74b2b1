"""Every parser reads an input or refuses it with a reason, whatever is in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fuzz
from fuzz_rows.parsers import Parser, parsers
from qprd.errors import QprdError

PARSERS = {parser.name: parser for parser in parsers()}
#: Inputs for each parser; the recorded run had many more.
INPUTS = 200


@pytest.mark.parametrize("name", PARSERS)
def test_inputs_are_read_or_refused(name: str) -> None:
    found = fuzz.feed(PARSERS[name], range(INPUTS), seed=1)
    assert not found.failures
    assert found.outcomes.total() == INPUTS
    assert found.outcomes["read"] > 0


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_mutated_can_be_read_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = PARSERS[name]
    monkeypatch.setattr(fuzz, "input_of", lambda parser, _seed, number: parser.seeds[number])
    found = fuzz.feed(parser, range(len(parser.seeds)), seed=0)
    assert found.outcomes == {"read": len(parser.seeds)}


def test_inputs_depend_on_seed_and_number_alone() -> None:
    parser = PARSERS["bundle.json"]
    inputs = [fuzz.input_of(parser, 0, number) for number in range(20)]
    assert inputs == [fuzz.input_of(parser, 0, number) for number in range(20)]
    assert len({*inputs, *(fuzz.input_of(parser, 1, number) for number in range(20))}) > 35


def _refuses(_folder: Path) -> object:
    raise QprdError("No.")


def _breaks(folder: Path) -> object:
    if b"\0" in (folder / "a").read_bytes():
        raise ValueError("embedded null byte")
    return None


def _is_slow(_folder: Path) -> object:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "kinds"), [(_refuses, set()), (_breaks, {"ValueError"}), (_is_slow, {"_TooSlowError"})]
)
def test_what_is_neither_read_nor_refused_is_told(
    read: Callable[[Path], object],
    kinds: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    planted = Parser("planted", "a", read, [b'{"a": 1}'])
    monkeypatch.setattr(fuzz, "_MAX_S", 0.05)
    monkeypatch.setattr(fuzz, "parsers", lambda _data: [planted])
    file = tmp_path / "fuzz.md"
    inputs = 2 if read is _is_slow else 200
    monkeypatch.setattr(sys, "argv", ["fuzz.py", f"--inputs={inputs}", f"--markdown={file}"])
    with pytest.raises(SystemExit) as stopped:
        fuzz.main()
    assert bool(stopped.value.code) is bool(kinds)
    told = capsys.readouterr().err
    assert all(f"planted: {kind}, first by input" in told for kind in kinds)
    assert "| planted | " in file.read_text()
