from __future__ import annotations

import io
import json
import logging
import re
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import typer
from click import UsageError

import qprd
from qprd.errors import QprdError, Terminated
from qprd.events import emit, log_events
from qprd.progress import SilentProgress, progress_bars
from tests.helpers.drawn_project import PREDICTION, TRAINING, flags_of, run_qprd


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_block_is_logged_from_its_start_to_its_end() -> None:
    stream = io.StringIO()
    emit("slide", image="before")
    with log_events(stream, "predict"):
        emit("slide", image="a.svs", slide_score=nan, folder=Path("x"), more=[-inf])
        logging.getLogger("qprd.jobs").info("Using %s.", "exchange")
        logging.getLogger("qprd.jobs").warning("Careful.")
    emit("slide", image="after")
    logging.getLogger("qprd.jobs").info("after")
    found = events_of(stream.getvalue())
    assert [event["event"] for event in found] == [
        "started",
        "slide",
        "message",
        "warning",
        "finished",
    ]
    assert found[0]["command"] == "predict"
    assert found[1] | {"time": ""} == {
        "event": "slide",
        "time": "",
        "image": "a.svs",
        "slide_score": None,
        "folder": "x",
        "more": [None],
    }
    assert found[2]["message"] == "Using exchange."
    assert found[4]["exit_code"] == 0


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (QprdError("Bad.", where="here", fix="Mend it."), 3, ["Bad."]),
        (ZeroDivisionError("by zero"), 1, ["ZeroDivisionError: by zero"]),
        (KeyboardInterrupt("Kept. Go on."), 130, ["Kept. Go on."]),
        (Terminated("Kept. Go on."), 143, ["Kept. Go on."]),
        (UsageError("No such option."), 2, ["No such option."]),
        (typer.Exit(1), 1, []),
    ],
)
def test_how_a_block_ends_is_logged(error: BaseException, code: int, told: list[str]) -> None:
    stream = io.StringIO()
    with pytest.raises(type(error)), log_events(stream, "train"):
        raise error
    _, *errors, last = events_of(stream.getvalue())
    assert [event["message"] for event in errors] == told
    assert (last["event"], last["exit_code"]) == ("finished", code)


def test_progress_is_told_at_both_ends_and_seldom_between() -> None:
    stream = io.StringIO()
    with log_events(stream, "train"), progress_bars(False).task("reading", 1000) as task:
        for _ in range(1000):
            task.advance()
    told = [event for event in events_of(stream.getvalue()) if event["event"] == "progress"]
    assert (told[0]["task"], told[0]["done"], told[0]["total"]) == ("reading", 0, 1000)
    assert told[-1]["done"] == 1000
    assert len(told) < 10
    assert (told[0]["unit"], told[0]["rate"], told[0]["seconds_left"]) == ("slide", None, None)
    assert told[-1]["rate"] > 0
    assert told[-1]["seconds_left"] == 0
    assert isinstance(progress_bars(False), SilentProgress)


def test_a_log_that_breaks_does_not_stop_the_work(caplog: pytest.LogCaptureFixture) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    with log_events(Full(), "train"):
        emit("message", message="a")
    assert [record.getMessage() for record in caplog.records] == [
        "No more events are logged: [Errno 28] No space left on device"
    ]


def test_a_log_that_cannot_be_opened_is_an_error_of_the_user(tmp_path: Path) -> None:
    with (
        pytest.raises(QprdError, match="cannot be logged"),
        qprd.log_events(tmp_path / "none" / "log.jsonl", "train"),
    ):
        pass


def test_every_event_is_documented() -> None:
    checkout = Path(qprd.__file__).parents[1]
    table = (checkout / "docs" / "events.md").read_text("utf-8").partition("Exit codes")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    code = "".join(path.read_text("utf-8") for path in (checkout / "qprd").rglob("*.py"))
    emitted = set(re.findall(r"(?:emit|sink\.write)\(\s*\"(\w+)\"", code))
    assert emitted | {"message"} == documented


def test_commands_log_what_they_do_and_how_they_failed(project: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for command, settings in (("train", TRAINING), ("predict", PREDICTION)):
        done = run_qprd(
            command, project, "--log-json", log, "--backend", "exchange", *flags_of(settings)
        )
        assert done.returncode == 0, done.stderr
    found = events_of(log.read_text())
    kinds = [event["event"] for event in found]
    assert [event["command"] for event in found if event["event"] == "started"] == [
        "train",
        "predict",
    ]
    assert {"progress", "message", "slide", "warning", "finished"} <= set(kinds)
    wrong = {**TRAINING, "tumor_class": "Lesion"}
    run_qprd("train", project, "--log-json", log, "--backend", "exchange", *flags_of(wrong))
    error, finished = events_of(log.read_text())[-2:]
    assert "Lesion" in error["message"]
    assert error["fix"]
    assert finished["exit_code"] == 3
