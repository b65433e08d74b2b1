"""Commands as another program runs them: lines of JSON on standard output, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qprd.files.layout import ProjectLayout
from tests.helpers.drawn_project import NAMES, PREDICTION, TRAINING, copied, environment, flags_of

#: What a front end may be started in; paths and names are not ASCII all the same.
LOCALE = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
LONG = {**TRAINING, "recipe": "paper", "epochs": 200}

Events = list[dict[str, Any]]


def started(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "qprd", *map(str, words), "--events"],
        env={**environment(), **LOCALE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def parsed(output: bytes) -> Events:
    assert output.endswith(b"\n")
    assert b"\r" not in output
    return [json.loads(line) for line in output.decode("ascii").splitlines()]


def run(*words: object) -> Events:
    with started(*words) as process:
        output, _ = process.communicate(timeout=240)
    events = parsed(output)
    assert [events[0]["event"], events[-1]["event"]] == ["started", "finished"]
    assert events[0]["command"] == words[0]
    assert events[-1]["exit_code"] == process.returncode
    return events


def last(events: Events, kind: str) -> dict[str, Any]:
    return [event for event in events if event["event"] == kind][-1]


@pytest.fixture(scope="module")
def project(_drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(_drawn, tmp_path_factory.mktemp("\u00e9 \u7a7a") / "a project")


@pytest.fixture(scope="module")
def loop(project: Path) -> Mapping[str, Events]:
    """A training, a prediction and what follows, each as a process of its own."""
    exchange = ("--backend", "exchange")
    return {
        "train": run("train", project, *exchange, *flags_of(TRAINING)),
        "predict": run("predict", project, *exchange, "--write-back", *flags_of(PREDICTION)),
        "evaluate": run("evaluate", project, *exchange, "--split", "all"),
        "status": run("status", project, *exchange, "--drawn"),
        "doctor": run("doctor", project, *exchange),
    }


@pytest.mark.slow
def test_every_line_of_a_command_is_an_event(loop: Mapping[str, Events], project: Path) -> None:
    kinds = {name: [event["event"] for event in events] for name, events in loop.items()}
    for name in loop:
        assert kinds[name].count("result") == 1
        assert {"progress", "message"} & set(kinds[name])
        assert last(loop[name], "finished")["exit_code"] == 0
        assert last(loop[name], "result")["lines"]
    bundle = Path(last(loop["train"], "result")["content"]["bundle"])
    assert (bundle / "bundle.json").is_file()
    assert Path(last(loop["predict"], "result")["content"]["index"]).is_file()
    tasks = {
        event["task"]: event["unit"] for event in loop["train"] if event["event"] == "progress"
    }
    assert tasks["finding tissue"] == "slide"
    assert tasks["reading patches"] == "patch"


@pytest.mark.slow
def test_a_slide_is_told_when_it_is_scored_and_when_it_can_be_imported(
    loop: Mapping[str, Events], project: Path
) -> None:
    for kind in ("slide", "written"):
        found = {
            event["entry"]: event["image"] for event in loop["predict"] if event["event"] == kind
        }
        assert set(found.values()) == set(NAMES)
    folder = ProjectLayout(project).predictions
    assert {path.stem for path in folder.glob("*.geojson")} == set(found)


@pytest.mark.slow
def test_the_status_says_what_is_drawn_and_what_came_of_each_image(
    loop: Mapping[str, Events],
) -> None:
    results = last(loop["status"], "result")["content"]["results"]
    assert [result["image"] for result in results] == list(NAMES)
    # The stride is not the default one.
    assert {(result["state"], result["by_default"]) for result in results} == {("fresh", False)}
    assert {result["written"] for result in results} == {"waiting"}
    assert all(result["slide_score"] is not None for result in results)
    drawn = [(result["tumor"] > 0, result["normal"] > 0) for result in results]
    assert drawn.count((True, True)) == 2
    assert drawn.count((False, False)) == 1


@pytest.mark.slow
def test_findings_of_the_doctor_name_their_images(project: Path, tmp_path: Path) -> None:
    own = copied(project, tmp_path / "own")
    own.write_text(own.read_text().replace(f"/{NAMES[1]}", "/gone.tif"))
    checks = last(run("doctor", own, "--backend", "exchange"), "result")["content"]["checks"]
    assert [NAMES[1]] in [check["images"] for check in checks if check["status"] != "PASS"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("train", "nowhere \u00e9"), 3, "project"),
        (("predict", "--strid", "3"), 2, "--strid"),
        (("evaluate", "--split", "most"), 2, "most"),
        (("no-such-command",), 2, "No such command"),
    ],
)
def test_a_mistake_is_one_error_with_its_fix(words: tuple[str, ...], code: int, told: str) -> None:
    events = run(*words)
    assert [event["event"] for event in events] == ["started", "error", "finished"]
    assert told in events[1]["message"]
    assert events[1]["fix"].endswith(".")
    assert events[-1]["exit_code"] == code


def test_a_reader_that_has_gone_changes_nothing_else() -> None:
    with started("train", "nowhere") as process:
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate(timeout=120)
    assert process.returncode == 3
    assert b"error: " in told
    assert b"Traceback" not in told


def test_orders_are_obeyed_while_nothing_else_waits_for_standard_input() -> None:
    code = (
        "import os, signal, sys, time\n"
        "from qprd.events import only_events_on_stdout\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "with only_events_on_stdout('train'):\n"
        "    print('read', os.read(0, 9), file=sys.stderr, flush=True)\n"
        "    for _ in range(600):\n"
        "        time.sleep(0.1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"read b''\n"
        process.stdin.write(b"stop\n")
        process.stdin.flush()
        assert process.wait(30) == 7


@pytest.mark.slow
@pytest.mark.parametrize("by_line", [True, False])
def test_a_training_that_is_stopped_says_how_to_go_on(
    project: Path, tmp_path: Path, by_line: bool
) -> None:
    project = copied(project, tmp_path / "\u00e9 \u7a7a")
    with started("train", project, "--backend", "exchange", *flags_of(LONG)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        output = b""
        while b'"event": "epoch"' not in output:
            output += (line := process.stdout.readline())
            assert line, output
        if by_line:
            process.stdin.write(b"stop\n")
            process.stdin.flush()
        else:
            process.terminate()
        output += process.stdout.read()
        assert process.wait(60) == 143
    events = parsed(output)
    assert last(events, "finished")["exit_code"] == 143
    assert "--resume" in last(events, "stopped")["message"]
    assert not [event for event in events if event["event"] == "error"]
    finished = run("train", project, "--backend", "exchange", "--resume", "--finish")
    assert Path(last(finished, "result")["content"]["bundle"]).is_dir()
