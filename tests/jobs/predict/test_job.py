"""Nothing is computed twice, nothing is lost, and any number of processes share the slides."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import qprd
from qprd.errors import DiskError
from qprd.files.backups import undoable
from qprd.files.claims import Claims
from qprd.files.layout import ProjectLayout
from qprd.files.lock import locked
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.undo import undo
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import SCORE_MAP
from qprd.results.folder import OVERVIEW, REVIEW, load_predictions
from tests.helpers.drawn_project import (
    NAMES,
    TUMOR,
    add_image,
    annotate,
    copied,
    drawn,
    edit,
    environment,
    predict,
    result,
    run_qprd,
    stored,
)

QPRD = (sys.executable, "-m", "qprd", "predict")
FLAGS = ("--backend", "exchange", "--device", "cpu", "--stride", "128")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the slides that this process scores from now on."""
    names: list[str] = []
    score = Predictor.score

    def counted(self: Predictor, slide: Any, image: str, *others: Any) -> Any:
        names.append(image)
        return score(self, slide, image, *others)

    monkeypatch.setattr(Predictor, "score", counted)
    return names


def maps(project: Path) -> dict[str, bytes]:
    """The score maps of a project."""
    results = ProjectLayout(project).results
    return {path.parent.name: path.read_bytes() for path in results.glob(f"*/{SCORE_MAP}")}


def test_slides_that_are_up_to_date_are_not_scored_again(
    trained_project: Path, scored: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="qprd")
    first = predict(trained_project, images=NAMES[:1])
    again = predict(trained_project)
    assert scored == list(NAMES)
    assert (again.scored, again.current) == (2, 1)
    assert "1 of 3 slides are up to date; --force scores them again." in caplog.messages
    assert [slide.image for slide in again.slides] == list(NAMES)
    assert again.slides[0] == first.slides[0]
    assert all(name in again.index.read_text() for name in NAMES)
    forced = predict(trained_project, force=True, images=NAMES[:1])
    assert scored[3:] == [NAMES[0]]
    assert (forced.scored, forced.current) == (1, 0)


def test_another_threshold_takes_the_scores_that_are_there(
    trained_project: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = copied(trained_project, trained_project.parent.parent / "expected")
    predict(expected, threshold=0.5, min_area_um2=0.0)
    predict(trained_project, threshold=1e3, images=NAMES[:2])
    undisturbed = maps(trained_project)
    scored.clear()
    with monkeypatch.context() as patch:
        patch.setattr("qprd.bundle.reading.load_bundle", None)
        summary = predict(trained_project, threshold=0.5, min_area_um2=0.0, images=NAMES[:2])
    assert (summary.scored, summary.redrawn, scored) == (2, 2, list(NAMES[:2]))
    assert "2 of them from scores that were kept" in "".join(summary.lines())
    assert maps(trained_project) == undisturbed
    for number in (1, 2):
        assert stored_outlines(trained_project, number) == stored_outlines(expected, number)
    # What is damaged is scored again, and so is what is to be.
    (result(trained_project, 1) / SCORE_MAP).write_bytes(b"")
    summary = predict(trained_project, threshold=0.4, images=NAMES[:1])
    assert (summary.scored, summary.redrawn) == (1, 0)
    summary = predict(trained_project, threshold=0.3, images=NAMES[:1], force=True)
    assert (summary.scored, summary.redrawn) == (1, 0)


def test_scores_are_not_kept_if_the_tissue_changes_before_its_turn_comes(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate(trained_project, 1, drawn(("Tissue", TUMOR)))
    predict(trained_project, images=NAMES[:1], tissue_class=("Tissue",))
    take = Claims.take

    def taken(self: Claims, name: str) -> bool:
        if name == "1":
            annotate(trained_project, 1, drawn(("Tissue", TUMOR.buffer(40))))
        return take(self, name)

    monkeypatch.setattr(Claims, "take", taken)
    summary = predict(trained_project, images=NAMES[:1], tissue_class=("Tissue",), threshold=0.4)
    assert (summary.scored, summary.redrawn) == (1, 0)


def stored_outlines(project: Path, number: int) -> list[Any]:
    contours = load_predictions(result(project, number)).contours
    assert contours
    return [contour.polygon for contour in contours]


@pytest.mark.parametrize("devices", [1, 2])
def test_the_events_tell_of_each_slide_what_became_of_it(
    trained_project: Path, tmp_path: Path, devices: int
) -> None:
    predict(trained_project, images=NAMES[:1])
    add_image(trained_project, 4, of=2, metadata={})

    def lose(root: Any) -> None:
        root["images"][3]["serverBuilder"]["uri"] = "file:/gone/4.tif"

    edit(trained_project, lose)
    log = tmp_path / "log.jsonl"
    with qprd.log_events(log, "predict"):
        summary = predict(trained_project, devices=devices)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    slides = [event for event in events if event["event"] == "slide"]
    assert {event["entry"]: event["state"] for event in slides} == {
        "1": "up to date",
        "2": "scored",
        "3": "scored",
        "4": "failed",
    }
    assert len(slides) == 4
    assert [event["problem"] for event in slides if "problem" in event] == list(summary.problems)


def test_without_anything_to_score_no_network_is_loaded(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(trained_project)

    def refused(*_: object, **_options: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("qprd.bundle.reading.load_bundle", refused)
    assert predict(trained_project).current == 3


def test_what_is_up_to_date_is_written_back_too_and_only_once(trained_project: Path) -> None:
    predict(trained_project)
    first = predict(trained_project, write_back=True, images=NAMES[:2]).write_back
    assert first is not None
    assert [report.image_name for report in first.written] == list(NAMES[:2])
    again = predict(trained_project, write_back=True).write_back
    assert again is not None
    assert [report.image_name for report in again.written] == [NAMES[2]]
    assert again.unchanged == 2
    assert any("2 images with results written already" in line for line in again.lines())
    with ExchangeProject(trained_project) as opened:
        undo(opened, everything=True, progress=SilentProgress())
    assert stored(trained_project, 1).tiles == ()
    restored = predict(trained_project, write_back=True).write_back
    assert restored is not None
    assert len(restored.written) == 3


def test_each_slide_is_written_back_once_it_is_scored(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    score = Predictor.score

    def looking(self: Predictor, *arguments: Any) -> Any:
        seen.append(sum(bool(stored(trained_project, number).tiles) for number in (1, 2, 3)))
        return score(self, *arguments)

    monkeypatch.setattr(Predictor, "score", looking)
    monkeypatch.setattr("qprd.jobs.predict.delivery._SHARE", 1)
    summary = predict(trained_project, write_back=True, uncertain=2)
    assert seen == [0, 1, 2]
    assert summary.write_back is not None
    assert sum(report.review for report in summary.write_back.written) == 2
    assert sum(report.replaced for report in summary.write_back.written) == 0
    (run,) = undoable(trained_project)
    assert not run.is_broken_off
    with ExchangeProject(trained_project) as opened:
        undo(opened, progress=SilentProgress())
    assert all(stored(trained_project, number).tiles == () for number in (1, 2, 3))


def test_regions_to_review_are_marked_on_slides_that_were_up_to_date(trained_project: Path) -> None:
    predict(trained_project, write_back=True)
    marked = predict(trained_project, write_back=True, uncertain=4)
    assert (marked.scored, len(marked.review)) == (0, 4)
    assert marked.write_back is not None
    with_regions = {region.image for region in marked.review}
    assert {report.image_name for report in marked.write_back.written} == with_regions
    predict(trained_project, write_back=True)
    assert not list(ProjectLayout(trained_project).results.glob(f"*/{REVIEW}"))
    assert all(stored(trained_project, number).review == () for number in (1, 2, 3))


def test_a_full_disk_leaves_what_was_scored_in_the_project(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Predictor.score

    def full(self: Predictor, slide: Any, image: str, *others: Any) -> Any:
        if image == NAMES[2]:
            raise DiskError("The results cannot be written.")
        return score(self, slide, image, *others)

    monkeypatch.setattr(Predictor, "score", full)
    with pytest.raises(DiskError, match=f"saved are {NAMES[0]}, {NAMES[1]}"):
        predict(trained_project, write_back=True)
    assert [bool(stored(trained_project, number).tiles) for number in (1, 2, 3)] == [1, 1, 0]
    assert NAMES[1] in (ProjectLayout(trained_project).results / "index.html").read_text()


def test_the_lock_of_another_command_is_waited_for(trained_project: Path) -> None:
    with (
        subprocess.Popen(
            [*QPRD, str(trained_project), *FLAGS, "--write-back"],
            env=environment(),
            stderr=subprocess.DEVNULL,
        ) as process,
        locked(trained_project),
    ):
        last = result(trained_project, 3) / OVERVIEW
        deadline = time.monotonic() + 60
        while not last.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert stored(trained_project, 1).tiles == ()
    assert process.returncode == 0
    assert all(stored(trained_project, number).tiles for number in (1, 2, 3))


# --- several processes -----------------------------------------------------------------------


def test_a_slide_that_another_process_is_at_is_left_to_it(
    trained_project: Path, scored: list[str]
) -> None:
    predict(trained_project, images=NAMES[:1])
    with Claims(trained_project) as other:
        assert other.take("2")
        assert other.take("of another command")
        summary = predict(trained_project, uncertain=2)
        assert summary.elsewhere == (NAMES[1],)
        assert (summary.review, summary.failed) == ((), 0)
        assert any("Other processes are scoring 1 slide;" in line for line in summary.lines())
        assert scored == [NAMES[0], NAMES[2]]
        other.fail("2", f"{NAMES[1]}: It is damaged.")
        summary = predict(trained_project, uncertain=2)
        assert summary.problems == (f"{NAMES[1]}: It is damaged.",)
        assert len(summary.review) == 2
    assert predict(trained_project).problems == ()


def test_several_devices_share_the_slides(trained_project: Path) -> None:
    undisturbed = copied(trained_project, trained_project.parent.parent / "undisturbed")
    predict(undisturbed)
    summary = predict(trained_project, devices=2, write_back=True, uncertain=2)
    assert [slide.image for slide in summary.slides] == list(NAMES)
    assert maps(trained_project) == maps(undisturbed)
    assert summary.write_back is not None
    assert len(summary.write_back.written) == 3
    assert len(summary.review) == 2
    assert len(undoable(trained_project)) == 1
    assert list(ProjectLayout(trained_project).claims.iterdir()) == []


@contextmanager
def three_processes(project: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Separate commands, as those of an array of a batch system are."""
    started = [
        subprocess.Popen(
            [*QPRD, str(project), *FLAGS, "--write-back", "--uncertain", "2"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_a_killed_process_of_three_costs_its_slide_and_not_the_run(trained_project: Path) -> None:
    for number in range(4, 10):
        add_image(trained_project, number, of=1 + number % 2, metadata={})
    undisturbed = copied(trained_project, trained_project.parent.parent / "undisturbed")
    predict(undisturbed)
    claims = ProjectLayout(trained_project).claims
    with three_processes(trained_project) as processes:
        by_id = {process.pid: process for process in processes}
        while not (taken := [path for path in claims.glob("[0-9]*.0") if path.stat().st_size]):
            time.sleep(0.01)
        slide = taken[0]
        victim = by_id.pop(json.loads(slide.read_text())["process"])
        victim.send_signal(signal.SIGKILL)
        told = [process.communicate(timeout=120) for process in by_id.values()]
    assert victim.returncode == -signal.SIGKILL
    assert [process.returncode for process in by_id.values()] == [0, 0], told
    assert maps(trained_project) == maps(undisturbed)
    counts = [re.search(r"Predicted (\d+) slide", out) for out, _ in told]
    assert sum(int(count[1]) for count in counts if count) == 9
    assert list(claims.iterdir()) == []
    page = (ProjectLayout(trained_project).results / "index.html").read_text()
    assert all(f"copy {number}" in page for number in range(4, 10))
    written = [stored(trained_project, number) for number in range(1, 10)]
    assert all(predictions.tiles for predictions in written)
    assert sum(len(predictions.review) for predictions in written) == 2
    (run,) = undoable(trained_project)
    assert len({step.manifest.subject.entry_id for step in run.steps}) == 9


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_prediction_that_is_ended_and_run_again_gives_what_an_undisturbed_one_gives(
    trained_project: Path, how: signal.Signals
) -> None:
    undisturbed = copied(trained_project, trained_project.parent.parent / "undisturbed")
    predict(undisturbed)
    command = [*QPRD, str(trained_project), *FLAGS, "--write-back", "--devices", "2"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not any((result(trained_project, number) / SCORE_MAP).exists() for number in (1, 2)):
            time.sleep(0.01)
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(how, -9), told
    assert "Traceback" not in told
    if how != signal.SIGKILL:
        assert any(stored(trained_project, number).tiles for number in (1, 2, 3))
    again = run_qprd("predict", trained_project, *FLAGS, "--write-back")
    assert again.returncode == 0, again.stderr
    assert "slides are up to date" in again.stderr
    assert maps(trained_project) == maps(undisturbed)
    assert all(stored(trained_project, number).tiles for number in (1, 2, 3))
