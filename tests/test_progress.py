from __future__ import annotations

import pytest

from qprd.progress import SilentProgress, TerminalProgress, progress_bars


def test_a_log_file_gets_lines_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress().task("reading", 4) as task:
        task.advance(2)
        task.note("half")
        task.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("reading: 2/4")
    assert lines[0].endswith("half")
    assert "0 s left" in lines[1]


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with TerminalProgress().task("a [name] with {brackets}", 4) as task:
        task.advance(4)
        task.note("done\x1b[2J")
    shown = capsys.readouterr().err
    assert "a [name] with {brackets}" in shown
    assert "4/4" in shown
    assert "done\ufffd[2J" in shown


def test_bars_can_be_asked_for_turned_off_or_given() -> None:
    assert isinstance(progress_bars(True), TerminalProgress)
    assert isinstance(progress_bars(False), SilentProgress)
    given = SilentProgress()
    assert progress_bars(given) is given


def test_nothing_is_shown_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentProgress().task("x", 1) as task:
        task.advance()
        task.note("y")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
