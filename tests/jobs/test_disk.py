"""A full disk and a read-only folder: clear errors, nothing lost, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qprd.bundle.names import HISTORY_FILE, PATCHES_FILE, PLOT_FILE
from qprd.bundle.reading import load_bundle
from qprd.cli import app
from qprd.errors import DiskError, QprdError
from qprd.jobs.predict.job import predict_project
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.slide_scores import SlideScores
from qprd.jobs.train.job import train_project
from qprd.jobs.train.run import runs_of
from qprd.jobs.write_back import write_back
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results import folder, tiff
from qprd.slides.slide import Slide
from tests.helpers.acts_after import ActsAfter
from tests.helpers.drawn_project import (
    NAMES,
    copied,
    prediction,
    snapshot,
    training,
    unfinished,
)

Mount = Callable[[str], Path]
FILLER = "filler"


def fill(disk: Path) -> None:
    """Leave no room at all."""
    with suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def fills_the_disk(title: str, disk: Path) -> ActsAfter:
    """Progress that fills the disk at the first advance of a bar."""
    return ActsAfter(1, lambda: fill(disk), title)


def files(disk: Path) -> dict[str, bytes]:
    return {path: content for path, content in snapshot(disk).items() if path != FILLER}


def test_a_disk_too_small_for_the_bundle_is_found_out_before_the_training(
    project: Path, mounted: Mount
) -> None:
    small = copied(project, mounted("size=4m") / "project")
    before = files(small.parent)
    with ExchangeProject(small) as opened, pytest.raises(QprdError, match="MiB are free"):
        train_project(opened, training(recipe="paper", epochs=10_000), progress=SilentProgress())
    assert files(small.parent) == before
    assert unfinished(small.parent) == []


def test_a_disk_that_fills_up_while_training_leaves_no_half_bundle(
    trained_project: Path, mounted: Mount
) -> None:
    disk = mounted("size=200m")
    small = copied(trained_project, disk / "project")
    before = files(disk)
    with ExchangeProject(small) as opened, pytest.raises(QprdError) as caught:
        train_project(opened, training(), progress=fills_the_disk("training", disk))
    assert "No space left" in caught.value.problem
    assert "--resume" in str(caught.value.fix)
    left = files(disk)
    assert {path for path in left if left[path] != before.get(path)} == {
        path for path in left if "/qprd/runs/" in path
    }
    assert unfinished(disk) == []


def test_a_bundle_for_which_there_is_no_room_is_written_later_without_training_again(
    project: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qprd.bundle import writing

    disk = mounted("size=400m")
    small = copied(project, disk / "project")
    save = writing.save_bundle

    def full(*arguments: Any) -> None:
        fill(disk)
        save(*arguments)

    with monkeypatch.context() as patch, ExchangeProject(small) as opened:
        patch.setattr(writing, "save_bundle", full)
        with pytest.raises(QprdError, match="bundle cannot be written") as caught:
            train_project(opened, training(tumor=0, epochs=2), progress=SilentProgress())
    assert "--resume" in str(caught.value.fix)
    (disk / FILLER).unlink()
    (run,) = runs_of(small)
    monkeypatch.setattr("qprd.training.loop.learn_epoch", None)
    with ExchangeProject(small) as opened:
        summary = train_project(
            opened, run.config({}, None), resumed=run, progress=SilentProgress()
        )
    load_bundle(summary.bundle)
    assert summary.epochs == 2
    assert runs_of(small) == []


@pytest.mark.parametrize("full_at", [PATCHES_FILE, HISTORY_FILE, PLOT_FILE])
def test_a_disk_that_fills_up_after_the_bundle_leaves_it_usable(
    project: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    from qprd.jobs.train import job
    from qprd.review import training_plot
    from qprd.training import history

    disk = mounted("size=400m")
    small = copied(project, disk / "project")
    just_before = {
        PATCHES_FILE: (job, "save_records"),
        HISTORY_FILE: (history, "save_history"),
        PLOT_FILE: (training_plot, "training_plot"),
    }
    module, name = just_before[full_at]
    original = getattr(module, name)

    def full(*args: object, **options: object) -> object:
        fill(disk)
        return original(*args, **options)

    monkeypatch.setattr(module, name, full)
    with ExchangeProject(small) as opened, pytest.raises(QprdError) as caught:
        train_project(opened, training(tumor=0), progress=SilentProgress())
    assert full_at in caught.value.problem
    assert "can be used" in caught.value.problem
    (saved,) = (small.parent / "qprd" / "bundles").iterdir()
    load_bundle(saved)
    assert not (saved / full_at).exists()
    assert unfinished(disk) == []


def test_a_disk_without_room_for_a_folder_is_no_traceback(project: Path, mounted: Mount) -> None:
    disk = mounted("size=100m,nr_inodes=60")
    small = copied(project, disk / "project")

    def use_up_inodes() -> None:
        for number in range(100):
            with suppress(OSError):
                (disk / f"{FILLER}{number}").touch()

    progress = ActsAfter(1, use_up_inodes, "finding tissue")
    with ExchangeProject(small) as opened, pytest.raises(QprdError, match="No space left"):
        train_project(opened, training(), progress=progress)


def test_a_disk_that_fills_up_while_predicting_keeps_what_there_is(
    trained_project: Path, mounted: Mount
) -> None:
    disk = mounted("size=100m")
    small = copied(trained_project, disk / "project")
    with ExchangeProject(small) as opened:
        predict_project(opened, prediction(threshold=6), progress=SilentProgress())
        before = files(disk)
        with pytest.raises(QprdError) as caught:
            predict_project(
                opened,
                prediction(threshold=0.01, stride=64),
                progress=fills_the_disk(NAMES[0], disk),
            )
    assert "No space left" in str(caught.value)
    assert f"stopped at {NAMES[0]}: nothing was saved" in caught.value.problem
    assert f"not scored any more are {NAMES[1]}, {NAMES[2]}" in caught.value.problem
    assert files(disk) == before
    assert unfinished(disk) == []


def test_slides_that_were_predicted_before_the_disk_was_full_stay(
    trained_project: Path, mounted: Mount
) -> None:
    disk = mounted("size=100m")
    small = copied(trained_project, disk / "project")
    saved = f"stopped at {NAMES[2]}: saved are {NAMES[0]}, {NAMES[1]}"
    with ExchangeProject(small) as opened, pytest.raises(DiskError, match=saved):
        predict_project(opened, prediction(), progress=fills_the_disk(NAMES[2], disk))
    results = small.parent / "qprd" / "results"
    assert sorted(path.name for path in results.iterdir()) == ["1", "2"]
    (disk / FILLER).unlink()
    with ExchangeProject(small) as opened:
        assert len(write_back(opened, progress=SilentProgress()).written) == 2


def test_a_disk_that_fills_up_while_writing_back_leaves_every_image_old_or_new(
    trained_project: Path, mounted: Mount
) -> None:
    disk = mounted("size=100m")
    small = copied(trained_project, disk / "project")
    with ExchangeProject(small) as opened:
        predict_project(opened, prediction(threshold=6), write_back=True, progress=SilentProgress())
        predict_project(opened, prediction(threshold=0.01), progress=SilentProgress())
        summary = write_back(opened, progress=fills_the_disk("writing back", disk))
        stored = [opened.read_predictions(entry) for entry in opened.entries()]
    full, untried = summary.problems
    assert "No space left" in full
    assert untried == f"{NAMES[2]}: not tried after that."
    assert summary.failed == 2
    found = [predictions.metadata["qprd: threshold"] for predictions in stored]
    assert found == ["0.0100", "6.0000", "6.0000"]
    assert unfinished(disk) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_prediction_stops_at_once_where_nothing_can_be_saved(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    scored: list[str] = []
    score = Predictor.score

    def counted(self: Predictor, slide: Slide, image: str, *others: Any) -> SlideScores:
        scored.append(image)
        return score(self, slide, image, *others)

    def refused(*_: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Predictor, "score", counted)
    monkeypatch.setattr(folder, "write_score_tiff", refused)
    with ExchangeProject(trained_project) as opened, pytest.raises(DiskError) as caught:
        predict_project(opened, prediction(), progress=SilentProgress())
    assert scored == [NAMES[0]]
    assert os.strerror(code) in caught.value.problem
    assert caught.value.exit_code != 0


def test_a_folder_that_only_one_slide_may_not_write_to_stops_only_that_slide(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tiff.write_score_tiff

    def refused(path: Path, *rest: Any, image: str) -> None:
        if image == NAMES[0]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        saved(path, *rest, image=image)

    monkeypatch.setattr(folder, "write_score_tiff", refused)
    with ExchangeProject(trained_project) as opened:
        summary = predict_project(opened, prediction(), progress=SilentProgress())
    assert [slide.image for slide in summary.slides] == list(NAMES[1:])
    assert summary.failed == 1


@pytest.fixture
def read_only(trained_project: Path, mounted: Mount) -> Path:
    """A project with a bundle and results on a file system that cannot be written."""
    disk = mounted("size=100m")
    project = copied(trained_project, disk / "project")
    with ExchangeProject(project) as opened:
        predict_project(opened, prediction(images=NAMES[:1]), progress=SilentProgress())
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True, capture_output=True)
    return project


def test_a_read_only_folder_is_said_by_each_command(read_only: Path) -> None:
    before = files(read_only.parent)
    for command in ("train", "predict", "write-back"):
        words = [command, str(read_only), "--backend", "exchange"]
        outcome = CliRunner().invoke(app, words)
        assert isinstance(outcome.exception, SystemExit), command
        assert outcome.exit_code in {1, 3}
        assert "cannot be written" in outcome.output
        assert "copy the project" in outcome.output.lower()
        assert "Traceback" not in outcome.output
    assert files(read_only.parent) == before


def test_a_report_that_cannot_be_written_is_said(read_only: Path) -> None:
    report = read_only.parent / "report.json"
    outcome = CliRunner().invoke(
        app, ["doctor", str(read_only), "--backend", "exchange", "--json", str(report)]
    )
    assert outcome.exit_code == 2
    assert "--json" in outcome.output
