"""A training that was stopped, and resumed: the same bundle, or an error that says what changed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from qprd.bundle.names import HISTORY_FILE, MODEL_FILE, PATCHES_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import ExitCode, QprdError
from qprd.jobs.train.run import Run, runs_of, stopped_run
from qprd.jobs.train.summary import TrainSummary
from tests.helpers.acts_after import stops_after
from tests.helpers.drawn_project import (
    MPP,
    NAMES,
    NORMAL,
    TUMOR,
    annotate,
    copied,
    drawn,
    edit,
    painted,
    resume,
    run_qprd,
    snapshot,
    train,
)

PAPER: dict[str, Any] = {"recipe": "paper", "epochs": 3, "batch_size": 12}
#: A step of `PAPER` is 12 of 24 patches.
STEPS = 2
NO_TUMOR: dict[str, Any] = {"recipe": "best", "epochs": 3, "batch_size": 8, "tumor": 0}
CLOSED: dict[str, Any] = {"recipe": "best", "batch_size": 12}


def stopped(project: Path, at: int, title: str = "training", **flags: Any) -> Run:
    """A training that Ctrl-C was pressed in."""
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        train(project, progress=stops_after(at, title), **flags)
    return runs_of(project)[-1]


def made(summary: TrainSummary) -> tuple[bytes, object, list[object]]:
    """Weights, scoring with threshold and calibration, and history of a bundle."""
    history: list[object] = []
    if (summary.bundle / HISTORY_FILE).exists():
        with (summary.bundle / HISTORY_FILE).open() as file:
            history = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    weights = (summary.bundle / MODEL_FILE).read_bytes()
    return weights, read_bundle_info(summary.bundle).scoring, history


@pytest.mark.parametrize(
    ("flags", "stops"),
    [
        (PAPER, [1, STEPS + 1, 3 * STEPS]),
        (NO_TUMOR, [1, STEPS + 1, 3 * STEPS]),
        (CLOSED, [12, 96, 192]),
    ],
    ids=["paper", "no tumor", "closed form"],
)
def test_a_resumed_training_makes_the_same_bundle(
    project: Path, tmp_path: Path, flags: dict[str, Any], stops: list[int]
) -> None:
    expected = made(train(copied(project, tmp_path / "undisturbed"), **flags))
    for at in stops:
        run = stopped(project, at, **flags)
        assert made(resume(project, run.name)) == expected
        assert runs_of(project) == []
    assert not (project.parent / "qprd" / "runs").exists()


def test_what_was_read_is_found_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped(project, STEPS + 1, **PAPER)
    assert {path.name for path in run.folder.iterdir()} >= {
        "run.json",
        "checkpoint.safetensors",
        HISTORY_FILE,
        PATCHES_FILE,
    }
    monkeypatch.setattr("qprd.jobs.train.fit.decode_all", None)
    assert resume(project).epochs == 3


def test_a_training_is_resumed_with_its_own_settings(project: Path) -> None:
    stopped(project, 1, **PAPER)
    before = snapshot(project.parent)
    with pytest.raises(QprdError, match="--epochs is 3 there, not 4; --seed is 0") as caught:
        resume(project, epochs=4, seed=1, batch_size=12, device="cpu")
    assert caught.value.exit_code == ExitCode.USAGE
    assert snapshot(project.parent) == before
    assert resume(project, epochs=3, devices=1).epochs == 3


def redraw(project: Path) -> None:
    annotate(project, 2, drawn(("Tumor", TUMOR.buffer(-8)), ("Normal", NORMAL)))


def repaint(project: Path) -> None:
    """Let the first image show another file, as if its own had been replaced."""
    slide = project.parent / NAMES[0]
    write_pyramidal_tiff(painted(9), slide, MPP)
    edit(project, lambda root: root["images"][0]["serverBuilder"].update(uri=slide.as_uri()))


@pytest.mark.parametrize(
    ("change", "named"),
    [(redraw, f"the annotations of {NAMES[1]}"), (repaint, f"the slide {NAMES[0]}")],
)
def test_what_changed_since_is_an_error(
    project: Path, change: Callable[[Path], None], named: str
) -> None:
    run = stopped(project, STEPS + 1, **PAPER)
    change(project)
    with pytest.raises(QprdError, match="these have changed") as caught:
        resume(project)
    assert named in caught.value.problem
    assert "train anew" in str(caught.value.fix)
    assert runs_of(project) == [run]


def test_another_version_does_not_go_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(project, 1, **PAPER)
    monkeypatch.setattr("qprd.jobs.train.run.installed_versions", lambda: {"torch": "9"})
    with pytest.raises(QprdError, match="changed: the versions of qprd and PyTorch"):
        resume(project)


def test_without_a_name_the_newest_is_resumed(project: Path) -> None:
    first, second = (stopped(project, 1, **PAPER, seed=seed) for seed in (1, 2))
    assert stopped_run(project, None) == second
    with FileLock(second.folder / "lock"):
        assert second.is_running
        assert stopped_run(project, None) == first
        with pytest.raises(QprdError, match="Another process is working on this training"):
            stopped_run(project, second.name)
    with pytest.raises(QprdError, match="no training 2020") as caught:
        stopped_run(project, "2020")
    assert f"{first.name}, {second.name}" in str(caught.value.fix)
    assert resume(project).bundle.exists()
    assert runs_of(project) == [first]


def test_without_any_it_is_said(project: Path) -> None:
    with pytest.raises(QprdError, match="no training to resume"):
        stopped_run(project, None)


def test_what_was_given_is_part_of_the_training(trained_project: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    flags = {**PAPER, "recipe": read_bundle_info(bundle).network.recipe}
    table = bundle / PATCHES_FILE
    expected = train(trained_project, parent=bundle, patches=table, **flags)
    run = stopped(trained_project, 1, parent=bundle, patches=table, **flags)
    assert run.record().parent == f"qprd/bundles/{bundle.name}"
    assert not run.record().sampled
    summary = resume(trained_project)
    assert summary.origin == expected.origin
    assert made(summary) == made(expected)


def test_what_a_kill_left_before_the_patches_were_read_is_removed(project: Path) -> None:
    left = project.parent / "qprd" / "runs" / "20200101-000000-resnet18"
    (left / "train").mkdir(parents=True)
    (left / "train" / "patches.npy").write_bytes(b"half")
    assert runs_of(project) == []
    train(project)
    assert not left.exists()


@pytest.mark.parametrize("flags", [PAPER, CLOSED], ids=["paper", "closed form"])
def test_a_stop_after_the_bundle_was_saved_makes_no_second_one(
    project: Path, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("qprd.jobs.train.job.save_records", stop)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(project, **flags)
    (bundle,) = (project.parent / "qprd" / "bundles").iterdir()
    before = snapshot(bundle)
    summary = resume(project)
    assert summary.bundle == bundle
    assert snapshot(bundle).items() >= before.items()
    assert (bundle / PATCHES_FILE).is_file()
    assert list(bundle.parent.iterdir()) == [bundle]
    assert runs_of(project) == []


def test_a_training_that_diverges_at_once_leaves_nothing(project: Path) -> None:
    with pytest.raises(QprdError, match="diverged"):
        train(project, **PAPER, lr=1e30)
    assert runs_of(project) == []


@pytest.mark.parametrize("damage", ["{", "{}", '{"config": {"epochs": -1}}'])
def test_a_damaged_run_is_said(project: Path, damage: str) -> None:
    run = stopped(project, 1, **PAPER)
    (run.folder / "run.json").write_text(damage)
    with pytest.raises(QprdError):
        resume(project)


def test_the_command_line_takes_a_run_or_none(project: Path) -> None:
    run = stopped(project, STEPS + 1, **PAPER)
    shutil.copytree(run.folder, run.folder.with_name("20990101-000000-later"))
    words = ("train", "--backend", "exchange")
    refused = run_qprd(*words, project, "--resume", "--patches", run.folder / PATCHES_FILE)
    assert refused.returncode == ExitCode.USAGE
    assert "keeps its patches" in refused.stderr
    for resumed in (["--resume", project], [project, "--resume", run.name]):
        done = run_qprd(*words, *resumed)
        assert done.returncode == 0, done.stderr
        assert "Epoch" in done.stdout
    assert runs_of(project) == []
