"""What the window in QuPath makes of qprd's events, and its commands, tried without a window."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qprd.cli import app
from qprd.errors import QprdError, Terminated
from qprd.events import emit, log_events
from qprd.progress import progress_bars
from qprd.qupath.scripts import script_folder, with_parts
from tests.helpers.script_session import launcher, run_in_turn

WINDOW = script_folder() / "qprd.groovy"
PROJECT = "/Präparate/Köln 1/project.qpproj"
CHOSEN = {
    "tumorClass": "Tumor, Karzinom in situ",
    "normalClass": "",
    "network": "efficientnet_lite0",
    "normal": "300",
    "tumor": "30",
    "sensitivity": "0.95",
    "uncertain": "7",
    "device": "cpu",
}
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "train": ("train", []),
    "resume": ("train", ["--resume", "20261130-141503-wide_resnet50_2"]),
    "predict": ("predict", ["--image", "Färbung 'A' \"1\" [x].svs"]),
    "evaluate": ("evaluate", []),
    "undo": ("undo", []),
    "status": ("status", ["--drawn"]),
    "doctor": ("doctor", []),
}

#: Reads what is to be tried from a file, and writes what came of it to another.
SCRIPT = """/*
 * Tries the parts of the window that need none.
 */

import java.nio.file.Path

def gson = new com.google.gson.Gson()
def given = gson.fromJson(new File('FOLDER/given.json').getText('UTF-8'), Map)
def ends = given.runs.collectEntries { name, text ->
    def job = new Run(command: 'train')
    job.stopAsked = name == 'no time to end'
    def told = text.split('\\n').collect { job.accept(it); job.status() }
    def end = job.end(name == 'alive')
    def seen = [told: told, end: end, resumes: job.canResume(end), fraction: job.fraction()]
    [name, seen + [said: end == null ? null : job.sentence(end), log: job.log,
            result: job.result, written: job.written, process: job.process]]
}
def project = Path.of(given.project)
def words = given.commands.collectEntries { name, command ->
    [name, CommandLine.of(['qprd'], command[0], project, given.chosen, command[1])]
}
def told = given.projects.collectEntries { name, images ->
    [name, Findings.nextTraining(images, name == 'again' ? 'm-2' : null)]
}
def program = 'FOLDER/bin/qprd'
def found = [CommandLine.find('', [], 'FOLDER/other:FOLDER/bin', false),
             CommandLine.find('', [], 'FOLDER/other', false),
             CommandLine.find('', [program, '-x'], '', false),
             CommandLine.find(program, ['gone'], '', false)]
def versions = ['qprd', 'other', 'none'].collect { CommandLine.versionOf(['FOLDER/bin/' + it]) }
def empty = imageOf(null, null, new Expando(getImageData: { null }))
keepUnchanged(empty)
def made = [empty: empty.viewer == null, versions: versions, runs: ends, commands: words,
            told: told, found: found,
            warnings: Findings.warnings(given.checks)*.finding,
            started: CommandLine.process(found[0]).directory().getPath()]
new File('FOLDER/made.json').setText(gson.toJson(made), 'UTF-8')

// ---- part run ----
// ---- end of part run ----

// ---- part image ----
// ---- end of part image ----
"""


def lines(error: BaseException | None = None, *, finished: bool = True) -> str:
    """The events of a training that says something, and then ends."""
    stream = io.StringIO()
    with suppress(QprdError, Terminated), log_events(stream, "train"):
        with progress_bars(False).task("reading patches", 40, "patch"):
            emit("message", message="Gewebe von Köln 1 ist gefärbt.")
        emit("slide", image="Köln 1", entry="7", contours=1)
        emit("slide", image="Köln 2", entry="8", problem="It is gone.")
        emit("written", image="Köln 1", entry="7")
        emit("result", lines=["All is well."], content={"bundle": "b"})
        emit("an event of later", surprise=[1])
        if error is not None:
            raise error
    text = stream.getvalue()
    return text if finished else text[: text.index('{"event": "finished"')] + '{"event": "fin'


def pace(done: int, rate: float | None, left: float | None, unit: str = "slide") -> str:
    """Progress of 600 units."""
    values = {"done": done, "total": 600, "unit": unit, "rate": rate, "seconds_left": left}
    time = "2026-11-30T12:00:00.000+00:00"
    return json.dumps({"event": "progress", "time": time, "task": "scoring", **values})


RUNS = {
    "done": lines(),
    "failed": lines(QprdError("There is no tumor.", where="Köln 1", fix="Draw some.")),
    "stopped": lines(Terminated("")),
    "died": lines(finished=False),
    "no time to end": lines(finished=False),
    "alive": lines(finished=False),
    "nothing": "qprd: command not found",
    "rate": "\n".join(
        (
            pace(0, None, None),
            pace(200, 10.0, 40.0, "patch"),
            pace(6, 0.025, 23760.0),
            pace(600, 10.0, 0.0),
        )
    ),
}


PROJECTS = {
    "fresh": [{"tumor": 0, "normal": 3, "split": None}, {"tumor": None, "normal": None}],
    "again": [
        {"tumor": 2, "normal": 0, "split": "train"},
        {"tumor": 0, "normal": 1, "split": "val"},
        {"tumor": 1, "normal": 1, "split": "train"},
        {"tumor": 0, "normal": 0, "split": "test"},
    ],
}
CHECKS = [
    {"status": status, "subject": subject, "finding": finding, "fix": fix}
    for status, subject, finding, fix in (
        ("WARN", "QuPath", "no other QuPath", "Install it."),
        ("FAIL", "PyTorch", "will not work", "Install it."),
        ("PASS", "project", "there", None),
        ("WARN", "a.svs", "out of focus", None),
        ("WARN", "training", "stopped", "qprd train --resume x goes on with it."),
        ("WARN", "written back", "1 waits", "Run a script."),
        ("FAIL", "slides", "none can be read", "See above."),
    )
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[str, Any]:
    launcher()
    root = tmp_path_factory.mktemp("window")
    shutil.copytree(shared_data / "qupath" / "colon" / "project", root / "project")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (root / "bin").mkdir()
    for name, said in (("qprd", "qprd 0.1.0"), ("other", "Python 3.11")):
        (root / "bin" / name).write_text(f"#!/bin/sh\necho {said}\necho and more\n")
        (root / "bin" / name).chmod(0o755)
    given = {"runs": RUNS, "commands": COMMANDS, "project": PROJECT, "chosen": CHOSEN}
    given |= {"projects": PROJECTS, "checks": CHECKS}
    (root / "given.json").write_text(json.dumps(given), encoding="utf-8")
    parts = {
        name: (script_folder() / "parts" / f"{name}.groovy").read_text(encoding="utf-8")
        for name in ("run", "image")
    }
    text = with_parts(SCRIPT, parts).replace("FOLDER", str(root))
    steps = [text, WINDOW.read_text(encoding="utf-8")]
    tried, opened = run_in_turn(steps, root / "project" / "project.qpproj", root / "steps")
    assert (root / "made.json").is_file(), tried
    found: dict[str, Any] = json.loads((root / "made.json").read_text(encoding="utf-8"))
    return {**found, "root": str(root), "printed": opened["1"]["printed"]}


@pytest.mark.qupath
@pytest.mark.parametrize(
    ("name", "end", "resumes", "said"),
    [
        ("done", "done", False, "The model is trained."),
        ("failed", "failed", False, "There is no tumor.\n(Köln 1)\nDraw some."),
        ("stopped", "stopped", True, "What was computed is kept."),
        ("died", "died", True, "it was killed"),
        ("no time to end", "stopped", True, "What was computed is kept."),
        ("alive", None, False, None),
        ("nothing", "died", False, "did not start"),
    ],
)
def test_the_window_tells_how_a_run_ended(
    made: dict[str, Any], name: str, end: str | None, resumes: bool, said: str | None
) -> None:
    run = made["runs"][name]
    assert (run.get("end"), run["resumes"]) == (end, resumes)
    assert said is None or said in run["said"]


@pytest.mark.qupath
def test_the_window_tells_what_is_done_and_how_long_it_takes(made: dict[str, Any]) -> None:
    runs = made["runs"]
    assert runs["done"]["log"] == [
        "Gewebe von Köln 1 ist gefärbt.",
        "Köln 1: 1 tumor contour",
        "Köln 2: could not be scored",
        "All is well.",
    ]
    assert runs["done"]["result"] == {"bundle": "b"}
    assert runs["done"]["written"] == ["7"]
    assert runs["alive"]["told"][1] == "Training: reading patches, 0 of 40"
    assert runs["alive"]["process"] > 0
    assert runs["nothing"]["told"] == ["Training: starting"]
    assert runs["nothing"]["fraction"] == -1
    assert runs["rate"]["told"] == [
        "Training: scoring, 0 of 600",
        "Training: scoring, 200 of 600, 10 patches a second, 40 s left",
        "Training: scoring, 6 of 600, 1.5 slides a minute, 6.6 h left",
        "Training: scoring, 600 of 600",
    ]


@pytest.mark.qupath
def test_commands_of_the_window_are_commands_of_qprd(made: dict[str, Any]) -> None:
    for name, (command, more) in COMMANDS.items():
        words = made["commands"][name]
        assert words[:3] == ["qprd", command, PROJECT]
        group = get_command(app)
        parser = group.get_command(None, command)  # type: ignore[attr-defined]
        parsed = parser.make_context(command, words[2:], resilient_parsing=True).params
        assert parsed["backend"] == "exchange"
        if more[:1] == ["--image"]:
            assert parsed["image"] == [more[1]]
    train = made["commands"]["train"]
    for option in (
        ["--tumor-class", "Tumor", "--tumor-class", "Karzinom in situ"],
        ["--operating-point", "sensitivity=0.95"],
        ["--normal", "300"],
    ):
        at = train.index(option[0])
        assert train[at : at + len(option)] == option
    assert "--normal-class" not in train
    # What is counted is what would be trained on.
    for name in ("status", "doctor"):
        words = made["commands"][name]
        assert [words[at + 1] for at, word in enumerate(words) if word == "--tumor-class"] == [
            "Tumor",
            "Karzinom in situ",
        ]
        assert "--teacher" not in words
    # A training that goes on has its settings; the device may be another.
    assert made["commands"]["resume"][3:] == [
        "--backend",
        "exchange",
        "--device",
        "cpu",
        "--events",
        "--resume",
        "20261130-141503-wide_resnet50_2",
    ]
    assert made["commands"]["predict"][5:] == [
        "--device",
        "cpu",
        "--write-back",
        "--uncertain",
        "7",
        "--events",
        "--image",
        COMMANDS["predict"][1][1],
    ]


@pytest.mark.qupath
def test_the_window_finds_the_program_and_starts_it_in_its_own_folder(made: dict[str, Any]) -> None:
    program = f"{made['root']}/bin/qprd"
    # Not in the project, as `python -m qprd` would take a module of that name from there.
    assert made["started"] == f"{made['root']}/bin"
    assert made["found"] == [[program], None, [program, "-x"], [program]]
    assert made["versions"] == ["qprd 0.1.0", None, None]


@pytest.mark.qupath
def test_the_window_tells_what_a_training_would_use_and_what_is_doubtful(
    made: dict[str, Any],
) -> None:
    assert made["told"]["fresh"] == "Draw tumor in some images, and normal tissue, to train on."
    assert made["told"]["again"] == (
        "Something is drawn on 3 of 4 images: 2 to learn from, 1 to choose the threshold on. "
        "The newest model is m-2."
    )
    assert made["warnings"] == ["will not work", "out of focus", "none can be read"]


@pytest.mark.qupath
def test_the_window_opens_where_no_image_is_open(made: dict[str, Any]) -> None:
    assert made["empty"]


@pytest.mark.qupath
def test_the_window_says_that_it_needs_one(made: dict[str, Any]) -> None:
    assert made["printed"] == "qprd: this script opens a window in QuPath, and there is none\n"


def test_the_window_speaks_of_no_programming_language() -> None:
    literals = re.findall(r"'([^'\n]+)'|\"([^\"\n]+)\"", WINDOW.read_text(encoding="utf-8"))
    said = {text for pair in literals for text in pair if text} - {"PYTHONUTF8"}
    assert "Predict this image" in said
    assert not [
        text for text in said if re.search(r"python|\bpip\b|torch|stack ?trace", text, re.I)
    ]
