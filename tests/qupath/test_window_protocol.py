"""What the window in QuPath says to qprd and hears of it, compared with what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.main import get_command

from qprd.cli import app
from qprd.jobs.groovy import copy_scripts
from qprd.qupath.scripts import script_folder

DOCS = Path(__file__).parents[2] / "docs" / "events.md"


def window() -> str:
    return (script_folder() / "qprd.groovy").read_text("utf-8")


def events_heard() -> dict[str, set[str]]:
    """Members that the window reads, by event."""
    text = (script_folder() / "parts" / "run.groovy").read_text("utf-8")
    body = text[text.index("void accept(") : text.index("double fraction()")]
    cases = re.findall(r"((?:case '\w+':\s+)+)(.*?)break", body, re.DOTALL)
    assert len(cases) > 5
    return {
        event: set(re.findall(r"event\.(\w+)", code)) - {"event"}
        for labels, code in cases
        for event in re.findall(r"case '(\w+)'", labels)
    }


def test_what_the_window_hears_is_documented() -> None:
    table = DOCS.read_text("utf-8").partition("Exit codes")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    for event, members in events_heard().items():
        told = set(re.findall(r"`(\w+)`", rows[event])) | {"time"}
        assert members <= told, event


def test_the_window_hears_of_errors_ends_and_results() -> None:
    assert {"progress", "result", "written", "error", "stopped", "finished"} <= set(events_heard())


def test_the_window_knows_options_that_qprd_has() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    known = {
        option
        for name in ("train", "predict", "evaluate", "status", "doctor", "undo")
        for parameter in commands[name].params
        for option in parameter.opts
    }
    said = set(re.findall(r"['\"](--[a-z-]+)['\"]", window())) - {"--version"}
    assert {"--events", "--backend", "--write-back", "--resume", "--drawn"} <= said
    assert said <= known


def test_an_installed_window_has_the_command_of_this_qprd(
    tmp_path: Path,
) -> None:
    copy_scripts(tmp_path / "a folder \u00e9")
    text = (tmp_path / "a folder \u00e9" / "qprd.groovy").read_text("utf-8")
    assert f"INSTALLED = ['{sys.executable}', '-m', 'qprd']" in text
