from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry import box

from qprd.bundle.reading import read_bundle_info
from qprd.errors import QprdError
from qprd.evaluation.cells import labeled_cells
from qprd.evaluation.metrics import auroc
from qprd.jobs.evaluate import page as evaluation_page
from qprd.jobs.evaluate.job import evaluate_project
from qprd.jobs.evaluate.summary import EvaluateSummary
from qprd.jobs.reporting import plain
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.folder import load_lesion_points, load_score_map
from tests.helpers.drawn_project import (
    HEIGHT,
    MPP,
    NAMES,
    NORMAL,
    TUMOR,
    WIDTH,
    add_slide,
    annotate,
    copied,
    draw_no_tumor_on,
    drawn,
    edit,
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

FIRST, SECOND, THIRD = NAMES


def evaluate(project: Path, **options: Any) -> EvaluateSummary:
    with ExchangeProject(project) as opened:
        return evaluate_project(opened, progress=SilentProgress(), **options)


def only_bundle(project: Path) -> Path:
    (bundle,) = (project.parent / "qprd" / "bundles").iterdir()
    return bundle


@pytest.fixture(scope="session")
def _predicted(_trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copied(_trained, tmp_path_factory.mktemp("predicted") / "project")
    predict(project, stride=32)
    return project


@pytest.fixture
def predicted_project(_predicted: Path, tmp_path: Path) -> Path:
    """Trained on the first slide, validated on the second, all three predicted."""
    return copied(_predicted, tmp_path / "predicted")


@pytest.fixture(autouse=True)
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(evaluation_page, "figure_png", lambda *_, **_options: b"\x89PNG")


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


def test_training_slides_enter_no_split_but_all(predicted_project: Path) -> None:
    annotate(predicted_project, 3, outlines())
    assert [s.entry.name for s in evaluate(predicted_project).slides] == [THIRD]
    assert [s.entry.name for s in evaluate(predicted_project, split="test").slides] == [THIRD]
    every = evaluate(predicted_project, split="all")
    assert [s.entry.name for s in every.slides] == list(NAMES)
    assert [s.report.used_for for s in every.slides] == ["train", "val", "nothing"]
    assert any("was trained on these" in note and FIRST in note for note in every.notes)


def test_a_training_slide_called_test_stays_one(predicted_project: Path) -> None:
    root = json.loads(predicted_project.read_text())
    root["images"][0]["metadata"]["split"] = "test"
    predicted_project.write_text(json.dumps(root))
    with pytest.raises(QprdError, match="no annotated test slides") as caught:
        evaluate(predicted_project, split="test")
    assert f"train ({FIRST})" in caught.value.problem


def rename(project: Path, **names: str) -> None:
    """Give images of these ids other names, as a person does in QuPath."""

    def change(root: Any) -> None:
        for image in root["images"]:
            image["imageName"] = names.get(f"id{image['entryID']}", image["imageName"])

    edit(project, change)


def test_a_training_slide_stays_one_under_another_name(predicted_project: Path) -> None:
    annotate(predicted_project, 3, outlines())
    # The slide that was not used gets the name of the one that was trained on.
    rename(predicted_project, id1="renamed.tif", id3=FIRST)
    every = evaluate(predicted_project, split="all")
    used = {slide.report.image: slide.report.used_for for slide in every.slides}
    assert used == {"renamed.tif": "train", SECOND: "val", FIRST: "nothing"}
    assert [s.entry.id for s in evaluate(predicted_project, split="test").slides] == ["3"]


def test_a_copy_of_a_training_slide_is_no_test_slide(
    predicted_project: Path, tmp_path: Path
) -> None:
    with ExchangeProject(predicted_project) as opened:
        first = opened.entries()[0].source.path
    assert first is not None
    shutil.copyfile(first, tmp_path / "copy.tif")
    add_slide(predicted_project, tmp_path / "copy.tif", WIDTH, HEIGHT)
    annotate(predicted_project, 4, outlines())
    with pytest.raises(QprdError, match="no annotated test slides") as caught:
        evaluate(predicted_project, split="test")
    assert f"train ({FIRST}, copy.tif)" in caught.value.problem


def test_another_part_of_a_training_file_can_be_tested_and_that_is_said(
    predicted_project: Path,
) -> None:
    info_file = only_bundle(predicted_project) / "bundle.json"
    document = json.loads(info_file.read_text())
    document["training"]["slides"][0]["area"] = [WIDTH, 0, WIDTH, HEIGHT]
    info_file.write_text(json.dumps(document))
    edit(predicted_project, lambda root: root["images"][0].update(metadata={"split": "test"}))
    summary = evaluate(predicted_project, split="test")
    assert [slide.report.used_for for slide in summary.slides] == ["nothing"]
    assert any("another part of the same file" in note and FIRST in note for note in summary.notes)


def test_a_bundle_that_knows_names_alone_goes_by_them_and_says_so(predicted_project: Path) -> None:
    info_file = only_bundle(predicted_project) / "bundle.json"
    document = json.loads(info_file.read_text())
    document["format"] = 4
    del document["number"]
    for key in ("slides", "validation_slides"):
        document["training"][key] = [slide["name"] for slide in document["training"][key]]
    info_file.write_text(json.dumps(document))
    every = evaluate(predicted_project, split="all")
    assert [slide.report.used_for for slide in every.slides] == ["train", "val"]
    assert any("by their names alone" in note for note in every.notes)


def test_scrambled_test_labels_change_the_evaluation_and_nothing_else(
    predicted_project: Path,
) -> None:
    """That they do not change the bundle either is tested with the training."""
    annotate(predicted_project, 3, outlines())
    before = evaluate(predicted_project, split="test")
    files = snapshot(predicted_project.parent)
    annotate(predicted_project, 3, drawn(("Tumor", NORMAL), ("Normal", TUMOR)))
    after = evaluate(predicted_project, split="test")
    area = before.patch.auroc
    assert area is not None
    assert after.patch.auroc == pytest.approx(1 - area)
    assert after.threshold == before.threshold
    now = snapshot(predicted_project.parent)
    changed = {Path(path).name for path in files if files[path] != now[path]}
    assert changed <= {"3.geojson", "evaluation.html", "evaluation.json", "index.html"}


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
    assert evaluate(predicted_project, split="val", bundle=bundle).bundle == bundle.name


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


def test_contours_that_nobody_judged_do_not_hide_false_positives(predicted_project: Path) -> None:
    """In training they keep normal tissue away; here they are what is judged."""
    tumor_only = drawn(("Tumor", TUMOR))
    annotate(predicted_project, 2, tumor_only)
    plainly = evaluate(predicted_project, split="val")
    pending = drawn(("Tumor: qprd", box(330, 100, 600, 600)), predicted=True)
    both = {**tumor_only, "features": tumor_only["features"] + pending["features"]}  # type: ignore[operator]
    annotate(predicted_project, 2, both)
    with_contours = evaluate(predicted_project, split="val")
    assert with_contours.patch.measured_on == plainly.patch.measured_on
    assert with_contours.patch.auroc == plainly.patch.auroc
    assert with_contours.pixel.iou == plainly.pixel.iou


def test_a_slide_is_normal_only_if_somebody_says_so(predicted_project: Path) -> None:
    summary = evaluate(predicted_project, split="all")
    assert summary.slide.measured_on == {"tumor": 2, "normal": 0}
    assert any(note.startswith("left out") and THIRD in note for note in summary.notes)
    declared = evaluate(predicted_project, split="all", unannotated_normal=True)
    assert declared.slide.measured_on == {"tumor": 2, "normal": 1}
    draw_no_tumor_on(predicted_project, 3)
    drawn_normal = evaluate(predicted_project, split="all")
    assert drawn_normal.slide.measured_on == {"tumor": 2, "normal": 1}
    assert drawn_normal.slide.auroc is not None


def test_a_slide_has_tumor_if_it_is_drawn_whatever_the_slide_is_called(
    predicted_project: Path,
) -> None:
    """Camelyon16's script asks for a prefix, so that every test slide counts as normal."""
    draw_no_tumor_on(predicted_project, 3)
    root = json.loads(predicted_project.read_text())
    names = ("test_001.tif", "normal_002.tif", "tumor_003.tif")
    for image, name in zip(root["images"], names, strict=True):
        image["imageName"] = name
    predicted_project.write_text(json.dumps(root))
    summary = evaluate(predicted_project, split="all")
    assert [slide.entry.name for slide in summary.slides] == list(names)
    assert [slide.report.has_tumor for slide in summary.slides] == [True, True, False]
    assert summary.slide.measured_on == {"tumor": 2, "normal": 1}
    # The drawn tumor of 112 x 128 um is no lesion by Camelyon16's rules.
    assert [slide.comparison.n_isolated for slide in summary.slides] == [1, 1, 0]
    third = summary.slides[2].comparison
    detected = load_lesion_points(result(predicted_project, 3))
    assert len(third.matches.false_positives) + third.n_unjudged == len(detected)


def test_lesion_points_are_judged_at_the_threshold_on_their_own_scale(
    predicted_project: Path,
) -> None:
    """They are probabilities, while the threshold is a raw score."""
    annotate(predicted_project, 2, drawn(("Normal", box(0, 0, WIDTH, HEIGHT))))
    (bundle,) = (predicted_project.parent / "qprd" / "bundles").iterdir()
    info = read_bundle_info(bundle)
    assert info.scoring.calibration is not None
    assert info.scoring.threshold is not None
    (slide,) = plain(evaluate(predicted_project, split="val").report())["slides"]  # type: ignore[index]
    scores = load_lesion_points(result(predicted_project, 2)).scores
    least = info.scoring.calibration.probability(info.scoring.threshold)
    assert slide["false_positives_at_threshold"] == (scores >= least).sum()
    assert (slide["slide_score"] >= info.scoring.threshold) == (scores.max() >= least)


def test_what_is_not_drawn_is_neither_right_nor_wrong(predicted_project: Path) -> None:
    """Contours and lesion points outside of tumor and drawn normal tissue: nobody knows."""
    predict(predicted_project, stride=32, images=[SECOND], threshold=-1)
    everything = evaluate(predicted_project, split="val")
    tissue = 512 * 576
    known = TUMOR.area + NORMAL.intersection(box(64, 64, WIDTH - 64, HEIGHT - 64)).area
    assert everything.pixel.iou == pytest.approx(TUMOR.area / known, rel=0.05)
    assert everything.pixel.iou_all_tissue == pytest.approx(TUMOR.area / tissue, rel=0.1)
    annotate(predicted_project, 2, drawn(("Tumor", TUMOR)))
    exhaustive = evaluate(predicted_project, split="val")
    assert exhaustive.pixel.iou == exhaustive.pixel.iou_all_tissue
    annotate(predicted_project, 2, drawn(("Tumor", TUMOR), ("Ignore*", NORMAL)))
    ignored = evaluate(predicted_project, split="val")
    shown = ignored.pixel.iou_all_tissue
    assert shown == pytest.approx(TUMOR.area / (tissue - NORMAL.area), rel=0.1)


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
        through_files = evaluate_project(opened, split="val", progress=SilentProgress())
    through_paquo, _ = open_project(colon_project, backend="paquo")
    with through_paquo:
        through_qupath = evaluate_project(through_paquo, split="val", progress=SilentProgress())
    for level in ("patch", "slide", "froc", "pixel"):
        a, b = (plain(s.report()[level]) for s in (through_files, through_qupath))
        assert a == pytest.approx(b) if isinstance(a, float) else a == b


def test_drawn_tumor_that_was_not_scored_is_missed_and_said(predicted_project: Path) -> None:
    """An outline of tissue leaves out the right half of the tumor."""
    middle = TUMOR.centroid.x
    classes = ("Tumor", TUMOR), ("Normal", NORMAL), ("Tissue", box(0, 0, middle, HEIGHT))
    annotate(predicted_project, 2, drawn(*classes))
    predict(predicted_project, stride=32, images=[SECOND], threshold=-1, tissue_class="Tissue")
    summary = evaluate(predicted_project, split="val", tissue_class=["Tissue"])
    report: Any = plain(summary.report())
    (slide,) = report["slides"]
    for found in (report, slide):
        tumor, normal = found["not_scored"]["tumor"], found["not_scored"]["normal"]
        assert tumor["drawn_mm2"] == pytest.approx(TUMOR.area * MPP**2 / 1e6)
        assert tumor["share"] == pytest.approx(0.5, abs=0.1)
        assert tumor["not_tissue_mm2"] == pytest.approx(tumor["not_scored_mm2"])
        assert normal["share"] == 1
    pixel = summary.pixel
    assert (pixel.iou, pixel.sensitivity) == pytest.approx((0.5, 0.5), abs=0.1)
    assert (pixel.iou_scored, pixel.sensitivity_scored) == pytest.approx((1, 1), abs=0.02)
    assert slide["iou_scored"] == pixel.iou_scored
    notes = [note for note in summary.notes if "was not scored" in note]
    assert len(notes) == 2
    assert re.fullmatch(rf"\d\d\.\d% of the drawn tumor was not .* {SECOND} \d\d\.\d%", notes[0])
    page = summary.page.read_text(encoding="utf-8")
    for text in ("\n".join(summary.lines()), page):
        assert notes[0] in text
        assert "Not scored" in text


def test_where_all_tumor_was_scored_nothing_is_said(predicted_project: Path) -> None:
    summary = evaluate(predicted_project, split="val")
    assert not any("was not scored" in note for note in summary.notes)
    assert summary.pixel.iou == summary.pixel.iou_scored
    assert summary.slides[0].report.lesions_not_scored == 0
