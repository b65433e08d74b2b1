"""Ctrl-C, as a real signal, at each stage of the main job."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qprd.bundle.reading import load_bundle, newest_bundle
from qprd.cli import app
from qprd.errors import ExitCode
from qprd.jobs.train.run import runs_of
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import load_score_map
from qprd.results.folder import load_predictions, load_slide_result
from tests.helpers.acts_after import ActsAfter
from tests.helpers.drawn_project import (
    NAMES,
    TRAINING,
    environment,
    flags_of,
    predict,
    snapshot,
    stored,
    unfinished,
)

FLAGS = flags_of(
    {**TRAINING, "recipe": "paper", "epochs": 4, "batch_size": 12, "backend": "exchange"}
)
BATCHES = 2  # 24 patches


def interrupted(
    monkeypatch: pytest.MonkeyPatch, title: str, at: int, *words: object
) -> tuple[int, str]:
    """Exit code and output of a command that Ctrl-C was pressed in."""
    progress = ActsAfter(at, lambda: signal.raise_signal(signal.SIGINT), title)
    monkeypatch.setattr("qprd.progress.TerminalProgress", lambda: progress)
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.output


@pytest.mark.parametrize(("stage", "at"), [("finding tissue", 1), ("reading patches", 5)])
def test_a_training_that_has_not_begun_leaves_the_project_as_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str, at: int
) -> None:
    before = snapshot(project.parent)
    code, printed = interrupted(monkeypatch, stage, at, "train", project, *FLAGS)
    assert (code, printed.splitlines()[-1]) == (ExitCode.INTERRUPTED, "Interrupted.")
    assert snapshot(project.parent) == before
    assert unfinished(project.parent) == []


@pytest.mark.parametrize(
    ("recipe", "at", "said"),
    [
        ("best", 3, "What was read and computed so far is kept."),
        ("paper", 1, "What was read and computed so far is kept."),
        ("paper", BATCHES + 1, "1 of 4 epochs are finished and kept; --finish makes a bundle"),
    ],
)
def test_a_training_that_is_interrupted_says_how_to_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, at: int, said: str
) -> None:
    before = snapshot(project.parent, without="qprd")
    words = ("train", project, *FLAGS, "--recipe", recipe)
    code, printed = interrupted(monkeypatch, "training", at, *words)
    assert code == ExitCode.INTERRUPTED
    (run,) = runs_of(project)
    assert f"Interrupted. {said}" in printed
    assert f"Go on with: qprd train {project} --resume {run.name}" in printed
    assert "Traceback" not in printed
    assert unfinished(project.parent) == []
    assert snapshot(project.parent, without="qprd") == before
    assert not (project.parent / "qprd" / "bundles").exists()


def test_the_epochs_so_far_make_a_bundle_if_that_is_wanted(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, "training", 3 * BATCHES, "train", project, *FLAGS)
    outcome = CliRunner().invoke(
        app, ["train", str(project), "--backend", "exchange", "--resume", "--finish"]
    )
    assert outcome.exit_code == 0, outcome.output
    _, info = load_bundle(newest_bundle(project.parent / "qprd" / "bundles"))
    assert info.training.metrics["epochs"] == 2
    assert info.scoring.threshold is not None
    assert runs_of(project) == []
    assert predict(project, images=NAMES[2:]).failed == 0


def test_a_training_that_is_interrupted_leaves_earlier_bundles(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(trained_project.parent)
    assert interrupted(monkeypatch, "training", 1, "train", trained_project, *FLAGS)[0] == 130
    after = snapshot(trained_project.parent)
    kept = {path: content for path, content in after.items() if "qprd/runs/" not in path}
    assert kept == before


def test_a_prediction_keeps_earlier_results_whole(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(trained_project, write_back=True, threshold=6)
    before = snapshot(trained_project.parent)
    words = ("predict", trained_project, "--write-back", "--backend", "exchange")
    settings = ("--stride", 64, "--device", "cpu", "--batch-size", 4, "--threshold", 0.01)
    code, printed = interrupted(monkeypatch, NAMES[1], 1, *words, *settings)
    assert code == ExitCode.INTERRUPTED
    assert "Traceback" not in printed
    assert unfinished(trained_project.parent) == []
    after = snapshot(trained_project.parent)
    changed = {path for path in after if after[path] != before.get(path)}
    # What there is of the only finished slide, and nothing of the others.
    places = {"/".join(Path(path).parts[:3]) for path in changed if "/backups/" not in path}
    assert places == {
        "qprd/results/1",
        "qprd/results/index.html",
        "qprd/predictions/1.geojson",
    }
    results = trained_project.parent / "qprd" / "results"
    for number, threshold in ((1, 0.01), (2, 6), (3, 6)):
        folder = results / str(number)
        assert load_slide_result(folder).threshold == threshold
        assert load_slide_result(folder).tiles == len(load_predictions(folder).tiles)
        assert load_score_map(folder).scores.size
    assert stored(trained_project, 1).metadata["qprd: threshold"] == "0.0100"
    monkeypatch.undo()
    again = CliRunner().invoke(app, [str(word) for word in (*words, *settings)])
    assert "1 of 3 slides are up to date" in again.output
    assert "Wrote" in again.output
    for number in (1, 2, 3):
        assert stored(trained_project, number).metadata["qprd: threshold"] == "0.0100"
    undo = CliRunner().invoke(app, ["undo", str(trained_project), "--backend", "exchange"])
    assert undo.exit_code == 0
    for number in (1, 2, 3):
        assert stored(trained_project, number).metadata["qprd: threshold"] == "6.0000"


def test_a_write_back_leaves_every_image_old_or_new(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(trained_project, write_back=True, threshold=6)
    predict(trained_project, threshold=0.01)
    before = snapshot(trained_project.parent, without="qprd")
    code, _ = interrupted(
        monkeypatch, "writing back", 1, "write-back", trained_project, "--backend", "exchange"
    )
    assert code == ExitCode.INTERRUPTED
    assert unfinished(trained_project.parent) == []
    assert snapshot(trained_project.parent, without="qprd") == before
    with ExchangeProject(trained_project) as opened:
        stored = [opened.read_predictions(entry) for entry in opened.entries()]
    assert [found.metadata["qprd: threshold"] for found in stored] == [
        "0.0100",
        "6.0000",
        "6.0000",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)],
)
def test_in_a_process_of_its_own_a_real_signal_ends_it_well(
    project: Path, how: signal.Signals, code: ExitCode
) -> None:
    flags = flags_of(
        {
            **TRAINING,
            "recipe": "paper",
            "epochs": 10_000,
            "batch_size": 8,
            "backend": "exchange",
        }
    )
    assert _ended_process(project, flags, how) == code
    (run,) = runs_of(project)
    assert 1 <= run.epochs < 10_000
    assert unfinished(project.parent) == []


@pytest.mark.qupath
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_java_does_not_take_signals_away(colon_project: Path, how: signal.Signals) -> None:
    few = {
        "recipe": "paper",
        "epochs": 10_000,
        "normal": 12,
        "tumor": 6,
        "val_patches": 4,
        "backend": "paquo",
    }
    before = snapshot(colon_project.parent)
    code = _ended_process(colon_project, flags_of({**TRAINING, **few}), how)
    assert code == (130 if how is signal.SIGINT else 143)
    (run,) = runs_of(colon_project)
    assert run.epochs
    assert snapshot(colon_project.parent, without="qprd") == before
    assert unfinished(colon_project.parent) == []


#: Runs a command that is killed when it calls a function.
KILLED = """
import importlib, os, signal, sys
module, function, *words = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(importlib.import_module(module), function, die)
from qprd.cli import app
app(words)
"""


@pytest.mark.slow
def test_what_a_killed_command_left_is_named_by_doctor_and_removed_by_the_next(
    trained_project: Path,
) -> None:
    command = ["predict", "--backend", "exchange", "--stride", "128", "--device", "cpu"]
    at = ["qprd.results.folder", "predictions_to_text"]
    words = [sys.executable, "-c", KILLED, *at, *command, str(trained_project)]
    killed = subprocess.run(words, env=environment(), capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (folder,) = unfinished(trained_project.parent)
    assert folder.startswith("qprd/results/.1.")
    before = snapshot(trained_project.parent)
    doctor = CliRunner().invoke(app, ["doctor", str(trained_project), "--backend", "exchange"])
    assert Path(folder).name in doctor.output
    assert snapshot(trained_project.parent) == before
    remove = CliRunner().invoke(app, ["remove", str(trained_project), "--backend", "exchange"])
    assert remove.exit_code == 0
    assert unfinished(trained_project.parent) == []


def _ended_process(project: Path, flags: list[str], how: signal.Signals) -> int:
    """Start a training, send a signal after its first epoch, and return its exit code."""
    with subprocess.Popen(
        [sys.executable, "-m", "qprd", "train", str(project), *flags],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(line)
                # The first line only says what the training keeps in memory.
                if line.startswith("training:") and "loss" in line:
                    process.send_signal(how)
                    break
            lines += process.stderr.readlines()
            code = process.wait(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in "".join(lines)
    return code
