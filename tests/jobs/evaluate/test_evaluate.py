from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry import box

import qprd
from qprd.errors import QprdError
from qprd.evaluation.cells import labeled_cells
from qprd.evaluation.metrics import auroc
from qprd.jobs.evaluate import page as evaluation_page
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.slide_scores import SlideScores
from qprd.jobs.reporting import plain
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import load_score_map
from tests.helpers.drawn_project import (
    HEIGHT,
    MPP,
    NAMES,
    NORMAL,
    TUMOR,
    WIDTH,
    add_slide,
    annotate,
    drawn,
    environment,
    outlines,
    painted,
    predict,
    result,
    run_qprd,
    snapshot,
    train,
    unfinished,
)
from tests.helpers.evaluated import evaluate

FIRST, SECOND, THIRD = NAMES


def test_validation_slides_are_measured_and_said_to_be_optimistic(predicted_project: Path) -> None:
    summary = evaluate(predicted_project, split="val")
    assert [slide.entry.name for slide in summary.slides] == [SECOND]
    assert any("optimistic" in note and SECOND in note for note in summary.notes)
    score_map = load_score_map(result(predicted_project, 2))
    cells = labeled_cells(score_map, TUMOR, NORMAL)
    patch = summary.patch
    assert patch.auroc == pytest.approx(auroc(cells.y_true, cells.scores))
    assert patch.measured_on["tumor"] == int(cells.y_true.sum()) > 0
    assert patch.measured_on["normal"] == int((~cells.y_true).sum()) > 0
    assert patch.intervals["auroc"].unit == "patches"
    assert any("over patches: too narrow" in line for line in summary.lines())


def test_the_json_has_what_was_promised(predicted_project: Path) -> None:
    report: Any = plain(evaluate(predicted_project, split="val").report())
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for level, name in (
        ("patch", "auroc"),
        ("patch", "accuracy"),
        ("slide", "auroc"),
        ("froc", "score"),
        ("pixel", "iou"),
    ):
        value = report[level][name]
        if value is None:
            assert report[level]["reasons"][name]
        else:
            assert 0 <= value <= 1
            assert set(report[level]["intervals"][name]) >= {"low", "high"}
    assert report["slide"]["auroc"] is None
    (slide,) = report["slides"]
    assert (slide["image"], slide["used_for"], slide["has_tumor"]) == (SECOND, "val", True)
    stored = predicted_project.parent / "qprd" / "results" / "evaluation.json"
    assert json.loads(stored.read_text())["patch"] == report["patch"]


def test_an_evaluation_changes_no_file_but_its_own(predicted_project: Path) -> None:
    before = snapshot(predicted_project.parent)
    evaluate(predicted_project, split="val")
    after = snapshot(predicted_project.parent)
    results = Path("qprd", "results")
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {
        str(results / name) for name in ("evaluation.html", "evaluation.json", "index.html")
    }
    assert set(before) <= set(after)
    assert unfinished(predicted_project.parent) == []


def test_the_index_links_to_the_page_and_says_when_it_is_outdated(
    predicted_project: Path,
) -> None:
    index = predicted_project.parent / "qprd" / "results" / "index.html"
    assert "evaluation.html" not in index.read_text()
    summary = evaluate(predicted_project, split="val")
    page = index.read_text(encoding="utf-8")
    assert 'href="evaluation.html"' in page
    assert f"patch AUROC {summary.patch.auroc:.3f}" in page
    assert "run qprd evaluate again" not in page
    stored = index.with_name("evaluation.json")
    earlier = json.loads(stored.read_text()) | {"created": "2020-01-01T00:00:00+00:00"}
    stored.write_text(json.dumps(earlier))
    predict(predicted_project, images=[SECOND])
    assert "before the last prediction: run qprd evaluate again" in index.read_text()
    train(predicted_project, seed=1)
    predict(predicted_project, images=[SECOND])
    assert f"another bundle, {summary.bundle}" in index.read_text()
    stored.write_text("{")
    predict(predicted_project, images=[SECOND])
    assert "evaluation.html" not in index.read_text()


def test_an_evaluation_during_a_prediction_is_outdated(
    predicted_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = evaluate(predicted_project, split="val")
    stored = predicted_project.parent / "qprd" / "results" / "evaluation.json"
    score = Predictor.score

    def evaluated_meanwhile(*args: Any, **options: Any) -> SlideScores:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        stored.write_text(json.dumps(json.loads(stored.read_text()) | {"created": now}))
        time.sleep(1)
        return score(*args, **options)

    monkeypatch.setattr(Predictor, "score", evaluated_meanwhile)
    index = predict(predicted_project, images=[SECOND], force=True).index
    assert "before the last prediction" in index.read_text(encoding="utf-8")
    assert evaluate(predicted_project, split="val").created > summary.created
    assert "before the last prediction" not in index.read_text(encoding="utf-8")


def test_slides_without_results_are_named_and_the_others_go_on(trained_project: Path) -> None:
    annotate(trained_project, 3, outlines())
    predict(trained_project, images=[SECOND])
    summary = evaluate(trained_project, split="all")
    assert [s.entry.name for s in summary.slides] == [SECOND]
    assert summary.failed == 2
    assert all("Run qprd predict first" in problem for problem in summary.problems)
    assert any(line.startswith(f"not evaluated: {THIRD}") for line in summary.lines())
    with pytest.raises(QprdError, match="None of the test slides can be evaluated") as caught:
        evaluate(trained_project, split="test")
    assert THIRD in str(caught.value)


def test_results_of_another_bundle_are_not_measured(predicted_project: Path) -> None:
    (bundle,) = (predicted_project.parent / "qprd" / "bundles").iterdir()
    later = train(predicted_project, seed=1).bundle
    with pytest.raises(QprdError, match=f"of the bundle {bundle.name}, not of {later.name}"):
        evaluate(predicted_project, split="val")
    assert evaluate(predicted_project, split="val", model=bundle).bundle == bundle.name


def test_contours_of_another_threshold_are_said(predicted_project: Path) -> None:
    predict(predicted_project, stride=32, images=[SECOND], threshold=0.02)
    summary = evaluate(predicted_project, split="val")
    assert any("drawn at the threshold 0.02" in note for note in summary.notes)
    assert summary.threshold != 0.02


def test_without_a_threshold_there_are_areas_but_no_accuracy(predicted_project: Path) -> None:
    (bundle,) = (predicted_project.parent / "qprd" / "bundles").iterdir()
    info = json.loads((bundle / "bundle.json").read_text())
    info["scoring"] |= {"threshold": None, "calibration": None}
    (bundle / "bundle.json").write_text(json.dumps(info))
    predict(predicted_project, stride=32)
    summary = evaluate(predicted_project, split="val")
    assert summary.threshold is None
    assert summary.patch.auroc is not None
    reasons: Any = summary.report()["patch"]
    assert reasons["reasons"]["accuracy"] == "the bundle has no threshold"
    assert (summary.false_positives, summary.misses) == ((), ())
    # A threshold given to the prediction serves instead.
    predict(predicted_project, stride=32, threshold=0.02)
    summary = evaluate(predicted_project, split="val")
    assert summary.threshold == 0.02
    assert any("judged at 0.02, which was given to qprd predict" in note for note in summary.notes)


def test_the_worst_mistakes_can_be_gone_to(predicted_project: Path, real_pictures: None) -> None:
    # Drawn the wrong way round, nearly all is a mistake.
    annotate(predicted_project, 2, drawn(("Tumor", NORMAL), ("Normal", TUMOR)))
    summary = evaluate(predicted_project, split="val")
    assert summary.threshold is not None
    mistakes = [*summary.false_positives, *summary.misses]
    assert summary.false_positives
    assert summary.misses
    page = summary.page.read_text(encoding="utf-8")
    for index, mistake in mistakes:
        slide = summary.slides[index]
        region = NORMAL if mistake.is_tumor else TUMOR
        assert region.contains(shapely.Point(mistake.x, mistake.y))
        score_map = load_score_map(result(predicted_project, int(slide.entry.id)))
        row, column = int(mistake.y // score_map.cell_px), int(mistake.x // score_map.cell_px)
        assert score_map.scores[row, column] == pytest.approx(mistake.score)
        assert (mistake.score >= summary.threshold) != mistake.is_tumor
        assert f"setCenterPixelLocation({mistake.x:.0f}, {mistake.y:.0f})" in page
        assert f"({mistake.x * MPP:.0f}, {mistake.y * MPP:.0f} µm)" in page
    assert page.count("data:image/jpeg") == len(mistakes)
    # ROC, precision and recall, FROC, calibration.
    assert page.count("data:image/png") == 4
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_a_mistake_on_a_slide_that_is_damaged_since_has_no_picture(
    predicted_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate(predicted_project, 2, drawn(("Tumor", NORMAL), ("Normal", TUMOR)))

    def damaged(*_: object, **__: object) -> None:
        raise QprdError("The slide may be damaged.", fix="Copy it again.")

    monkeypatch.setattr(evaluation_page, "open_slide", damaged)
    summary = evaluate(predicted_project, split="val")
    assert summary.false_positives
    page = summary.page.read_text(encoding="utf-8")
    assert "No picture: The slide may be damaged. Copy it again." in page
    assert "data:image/jpeg" not in page


def test_a_damaged_result_is_a_problem_of_its_slide(predicted_project: Path) -> None:
    (result(predicted_project, 1) / "score_map.npz").write_bytes(b"no")
    summary = evaluate(predicted_project, split="all")
    assert [s.entry.name for s in summary.slides] == [SECOND]
    assert summary.problems[0].startswith(FIRST)


def test_a_slide_that_is_gone_is_a_problem_of_its_own(predicted_project: Path) -> None:
    root = json.loads(predicted_project.read_text())
    root["images"][0]["serverBuilder"]["uri"] = "file:///gone/first.tif"
    predicted_project.write_text(json.dumps(root))
    summary = evaluate(predicted_project, split="all")
    assert summary.problems[0].startswith(f"{FIRST}: The slide is not where the project says")


def test_the_command_reports_and_fails_where_a_slide_is_missing(predicted_project: Path) -> None:
    report = predicted_project.parent / "figures.json"
    done = run_qprd(
        "evaluate", predicted_project, "--backend", "exchange", "--split", "val", "--json", report
    )
    assert done.returncode == 0, done.stderr
    assert "AUROC" in done.stdout
    assert json.loads(report.read_text())["split"] == "val"
    annotate(predicted_project, 3, outlines())
    for file in result(predicted_project, 3).iterdir():
        file.unlink()
    done = run_qprd("evaluate", predicted_project, "--backend", "exchange", "--split", "all")
    assert done.returncode == 1
    assert f"not evaluated: {THIRD}" in done.stdout


def test_neither_torch_nor_java_is_loaded(predicted_project: Path) -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from qprd.cli import app\n"
        f"words = ['evaluate', {str(predicted_project)!r}, '--backend', 'exchange']\n"
        "done = CliRunner().invoke(app, words)\n"
        "assert done.exit_code == 0, done.output\n"
        "print(sorted({'torch', 'timm', 'paquo', 'jpype'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_resolution_that_was_assumed_is_that_of_the_prediction(
    predicted_project: Path, tmp_path: Path, real_pictures: None
) -> None:
    tifffile.imwrite(tmp_path / "no-mpp.tif", painted(3), tile=(256, 256))
    add_slide(predicted_project, tmp_path / "no-mpp.tif", WIDTH, HEIGHT, mpp=None)
    predict(predicted_project, stride=32, images=["no-mpp.tif"], assume_mpp=0.25)
    # Drawn the wrong way round: there are mistakes to show, for which the slide is opened again.
    annotate(predicted_project, 4, drawn(("Tumor", NORMAL), ("Normal", TUMOR)))
    summary = evaluate(predicted_project, split="test")
    (slide,) = summary.slides
    assert slide.mpp == 0.25
    assert summary.false_positives
    assert evaluate(predicted_project, split="test", assume_mpp=0.25).slides[0].mpp == 0.25
    with pytest.raises(QprdError, match=r"predicted at 0\.25 um/px, and has 0\.5 um/px now"):
        evaluate(predicted_project, split="test", assume_mpp=0.5)


def test_what_is_remarkable_of_a_slide_is_said_once_with_its_name(predicted_project: Path) -> None:
    regions = drawn(("Tumor", TUMOR), ("Normal", NORMAL), ("Ignore*", box(96, 96, 130, 352)))
    annotate(predicted_project, 2, regions)
    stored = result(predicted_project, 2) / "slide.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"slide_score": None}))
    notes = evaluate(predicted_project, split="val").notes
    (cut,) = [note for note in notes if "An ignored class cuts out" in note]
    assert cut.startswith(f"{SECOND}: Tumor")
    assert f"without a slide score, and so left out of the slide figures: {SECOND}" in notes


def test_unbounded_raw_scores_are_measured_too(predicted_project: Path) -> None:
    folder = result(predicted_project, 2)
    score_map = load_score_map(folder)
    stretched = replace(score_map, scores=score_map.scores * 1000 - 500)
    np.savez_compressed(
        folder / "score_map.npz",
        scores=stretched.scores,
        grid=np.array([score_map.x, score_map.y, score_map.cell_px, score_map.mpp]),
    )
    before = labeled_cells(score_map, TUMOR, NORMAL)
    found = evaluate(predicted_project, split="val").patch.auroc
    assert found == pytest.approx(auroc(before.y_true, before.scores))


@pytest.mark.qupath
@pytest.mark.slow
def test_both_backends_measure_the_same(colon_project: Path, shared_data: Path) -> None:
    from qprd.jobs.predict.job import predict_project
    from qprd.jobs.train.job import train_project
    from qprd.qupath.opening import open_project
    from tests.helpers.drawn_project import prediction, training

    annotations = shared_data / "qupath" / "colon" / "annotations"
    with ExchangeProject(colon_project, annotations=annotations) as opened:
        few = training(normal=12, tumor=6, val_patches=4)
        train_project(opened, few, progress=SilentProgress())
        config = prediction(stride=512, images=("colon_2.tif",))
        predict_project(opened, config, progress=SilentProgress())
        through_files = qprd.evaluate(opened, split="val", progress=SilentProgress())
    through_paquo, _ = open_project(colon_project, backend="paquo")
    with through_paquo:
        through_qupath = qprd.evaluate(through_paquo, split="val", progress=SilentProgress())
    for level in ("patch", "slide", "froc", "pixel"):
        a, b = (plain(s.report()[level]) for s in (through_files, through_qupath))
        assert a == pytest.approx(b) if isinstance(a, float) else a == b
