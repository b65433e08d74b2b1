from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qprd
from qprd.cli import app
from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.write_back import WriteBackSummary
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.opening import open_project
from qprd.results.folder import SLIDE, load_predictions, load_slide_result
from tests.helpers.drawn_project import (
    MPP,
    NAMES,
    PREDICTION,
    painted,
    predict,
    result,
    snapshot,
    stored,
    train,
    turn,
)


def write_back(project: Path, *images: str) -> WriteBackSummary:
    with ExchangeProject(project) as opened:
        return qprd.write_back(opened, images=images, progress=SilentProgress())


def test_results_are_written_back_later_without_predicting(trained_project: Path) -> None:
    predict(trained_project, threshold=0.01, images=NAMES[:2])
    assert not (trained_project.parent / "qprd" / "predictions").exists()
    summary = write_back(trained_project)
    assert [report.entry_id for report in summary.written] == ["1", "2"]
    assert (summary.problems, summary.failed) == ((), 0)
    for report in summary.written:
        meant = load_predictions(result(trained_project, int(report.entry_id)))
        found = stored(trained_project, int(report.entry_id))
        assert [tile.id for tile in found.tiles] == [tile.id for tile in meant.tiles]
        assert [c.id for c in found.contours] == [c.id for c in meant.contours]
        assert found.metadata == meant.metadata
        assert (report.tiles, report.contours) == (len(meant.tiles), len(meant.contours))
    assert any("import_predictions.groovy" in line for line in summary.lines())


def test_writing_back_twice_changes_nothing(trained_project: Path) -> None:
    predict(trained_project, threshold=0.01, images=NAMES[:1], write_back=True)
    before = snapshot(trained_project.parent)
    summary = write_back(trained_project)
    assert snapshot(trained_project.parent) == before
    assert summary.written[0].replaced == summary.written[0].tiles + summary.written[0].contours


def test_only_the_named_image_is_written(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:2])
    assert [report.entry_id for report in write_back(trained_project, NAMES[1]).written] == ["2"]
    assert stored(trained_project, 1).tiles == ()


def test_without_results_it_says_to_predict_first(project: Path) -> None:
    with pytest.raises(QprdError, match="no results") as caught:
        write_back(project)
    assert "qprd predict" in (caught.value.fix or "")


def test_a_damaged_result_stops_only_its_own_image(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:2])
    (result(trained_project, 1) / "predictions.geojson").write_text("{")
    summary = write_back(trained_project)
    assert [report.entry_id for report in summary.written] == ["2"]
    assert summary.failed == 1
    assert summary.problems[0].startswith(NAMES[0])


def test_a_named_image_without_results_is_a_problem(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:1])
    summary = write_back(trained_project, NAMES[0], NAMES[2])
    assert summary.problems[0].startswith(NAMES[2])
    assert len(summary.written) == 1


@contextmanager
def instead(slide: Path, content: bytes | None) -> Iterator[None]:
    """Another file in a slide's place, or none, for a while: other tests share it."""
    away = slide.with_name("away")
    slide.rename(away)
    try:
        if content is not None:
            slide.write_bytes(content)
        yield
    finally:
        away.replace(slide)


@pytest.mark.parametrize("state", ["gone", "gone meanwhile", "cut off", "another"])
def test_a_slide_that_cannot_be_read_gets_nothing_and_the_others_do(
    trained_project: Path, state: str
) -> None:
    predict(trained_project, images=NAMES[:2])
    before = snapshot(trained_project.parent)
    with ExchangeProject(trained_project) as opened:
        entries = opened.entries() if state == "gone meanwhile" else ()
        first, second = (Path(entry.source.path or "") for entry in opened.entries()[:2])
        assert all(path.is_file() for path in (first, second))
        smaller = first.with_name("smaller.tif")
        if state == "another":
            write_pyramidal_tiff(painted(9)[:320], smaller, MPP)
        content = {"cut off": first.read_bytes()[:1000]}.get(state)
        content = smaller.read_bytes() if state == "another" else content
        with instead(first, content):
            if entries:
                summary = qprd.write_back(opened, progress=SilentProgress())
                failed, printed = summary.failed, "\n".join(summary.lines())
            else:
                words = ["write-back", str(trained_project), "--backend", "exchange"]
                outcome = CliRunner().invoke(app, words)
                failed, printed = outcome.exit_code, outcome.output
    smaller.unlink(missing_ok=True)
    assert failed == 1
    assert f"not written: {NAMES[0]}: " in printed
    assert stored(trained_project, 1).tiles == ()
    assert stored(trained_project, 2).tiles
    after = snapshot(trained_project.parent)
    assert {name: after[name] for name in before} == before
    # Once it is back its results, which are still there, can be written.
    assert write_back(trained_project).failed == 0
    assert stored(trained_project, 1).tiles


def test_an_image_that_was_turned_since_it_was_predicted_gets_nothing(
    trained_project: Path,
) -> None:
    predict(trained_project, images=NAMES[:2])
    turn(trained_project, 1)
    summary = write_back(trained_project)
    assert summary.failed == 1
    assert "turned or cropped since it was predicted" in summary.problems[0]
    assert [report.entry_id for report in summary.written] == ["2"]
    assert stored(trained_project, 1).tiles == ()
    evaluated = CliRunner().invoke(
        app, ["evaluate", str(trained_project), "--backend", "exchange", "--split", "all"]
    )
    assert evaluated.exit_code == 1
    assert "turned or cropped since it was predicted" in " ".join(evaluated.output.split())


@pytest.mark.qupath
@pytest.mark.slow
def test_both_backends_write_the_same(
    colon_project: Path, shared_data: Path, tmp_path: Path
) -> None:
    from qprd.jobs.train.job import train_project
    from tests.helpers.drawn_project import training

    drawn = shared_data / "qupath" / "colon" / "annotations"
    with ExchangeProject(colon_project, annotations=drawn) as opened:
        few = training(normal=12, tumor=6, val_patches=4)
        train_project(opened, few, progress=SilentProgress())
        before = len(opened.annotations(opened.entries()[1]))
        config = predict_config(
            {**PREDICTION, "stride": 512, "threshold": 0.01, "images": ("colon_2.tif",)}
        )
        predict_project(opened, config, write_back=True, progress=SilentProgress())
        through_files = opened.read_predictions(opened.entries()[1])
    through_paquo, _ = open_project(colon_project, backend="paquo")
    with through_paquo:
        summary = qprd.write_back(through_paquo, progress=SilentProgress())
        assert summary.failed == 0
        entry = through_paquo.entries()[1]
        through_qupath = through_paquo.read_predictions(entry)
        own = len(through_qupath.contours)
        assert len(through_paquo.annotations(entry)) == before + own
        # Results of another image are not written into this one.
        folder = ProjectLayout(colon_project)
        shutil.copytree(folder.result("2"), folder.result("1"))
        summary = qprd.write_back(through_paquo, progress=SilentProgress())
        assert [report.entry_id for report in summary.written] == ["2"]
        assert "image 1, colon_1.tif, are of another slide, colon_2.tif" in summary.problems[0]
        assert through_paquo.read_predictions(through_paquo.entries()[0]).tiles == ()
    of_qupath = {tile.id: tile.measurements for tile in through_qupath.tiles}
    assert of_qupath.keys() == {tile.id for tile in through_files.tiles}
    for tile in through_files.tiles:
        # QuPath stores measurements in single precision.
        assert of_qupath[tile.id] == pytest.approx(tile.measurements, rel=1e-6)
    assert {c.id for c in through_files.contours} == {c.id for c in through_qupath.contours}
    assert own > 0


def test_results_of_two_bundles_are_each_written_with_their_own_name(
    trained_project: Path,
) -> None:
    first = predict(trained_project, images=NAMES[:1])
    assert write_back(trained_project).notes == ()
    second_bundle = train(trained_project, seed=1).bundle
    predict(trained_project, images=NAMES[1:2])
    summary = write_back(trained_project)
    assert summary.bundles == {first.bundle.name: [NAMES[0]], second_bundle.name: [NAMES[1]]}
    (note,) = summary.notes
    assert f"not of the newest bundle, {second_bundle.name}" in note
    assert f"{NAMES[0]} by {first.bundle.name}." in note
    assert f"note: {note}" in summary.lines()
    assert stored(trained_project, 1).metadata["qprd: bundle"] == first.bundle.name
    assert stored(trained_project, 2).metadata["qprd: bundle"] == second_bundle.name


@pytest.mark.parametrize("known", ["fingerprint", "name"])
def test_results_of_another_image_are_written_into_none(trained_project: Path, known: str) -> None:
    predict(trained_project, images=NAMES[:2])
    shutil.rmtree(result(trained_project, 1))
    # As if ids had changed: both slides have the same size.
    shutil.copytree(result(trained_project, 2), result(trained_project, 1))
    if known == "name":
        for entry_id in (1, 2):
            file = result(trained_project, entry_id) / SLIDE
            file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": None}))
    summary = write_back(trained_project)
    assert [report.entry_id for report in summary.written] == ["2"]
    (problem,) = summary.problems
    assert f"image 1, {NAMES[0]}, are of another slide, {NAMES[1]}" in problem
    assert stored(trained_project, 1).tiles == ()


def test_results_of_a_renamed_image_are_written(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:1])
    text = trained_project.read_text(encoding="utf-8")
    trained_project.write_text(
        text.replace(f'"imageName": "{NAMES[0]}"', '"imageName": "new name"')
    )
    summary = write_back(trained_project)
    assert [report.image_name for report in summary.written] == ["new name"]
    written = trained_project.parent / "qprd" / "predictions" / "1.geojson"
    record = json.loads(written.read_text())["qprd"]
    assert record["image"] == "new name"
    assert record["fingerprint"] == load_slide_result(result(trained_project, 1)).fingerprint
