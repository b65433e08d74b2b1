"""What is drawn decides what is right: contours, areas and lesion points compared with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box
from typer.testing import CliRunner

from qprd.bundle.names import INFO_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.cli import app
from qprd.jobs.reporting import plain
from qprd.results.arrays import SCORE_MAP
from qprd.results.folder import load_lesion_points
from tests.helpers.drawn_project import (
    HEIGHT,
    MPP,
    NAMES,
    NORMAL,
    TUMOR,
    WIDTH,
    annotate,
    draw_no_tumor_on,
    drawn,
    predict,
    result,
)
from tests.helpers.evaluated import evaluate, only_bundle

FIRST, SECOND, THIRD = NAMES


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


def test_the_training_says_whether_bare_slides_are_normal_unless_the_user_does(
    predicted_project: Path,
) -> None:
    info = only_bundle(predicted_project) / INFO_FILE
    document = json.loads(info.read_text(encoding="utf-8"))
    document["training"]["config"]["unannotated_normal"] = True
    info.write_text(json.dumps(document), encoding="utf-8")
    for given, n_normal in ((None, 1), (True, 1), (False, 0)):
        summary = evaluate(predicted_project, split="all", unannotated_normal=given)
        assert summary.slide.measured_on == {"tumor": 2, "normal": n_normal}
    words = ["evaluate", str(predicted_project), "--backend", "exchange", "--split", "all"]
    measured = [
        bool(re.search(f"{THIRD} +normal", CliRunner().invoke(app, [*words, *options]).output))
        for options in ([], ["--no-unannotated-normal"])
    ]
    assert measured == [True, False]


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


def test_drawn_tumor_that_was_not_scored_is_missed_and_said(predicted_project: Path) -> None:
    """An outline of tissue, deleted since, left out the right half of the tumor."""
    middle = TUMOR.centroid.x
    classes = ("Tumor", TUMOR), ("Normal", NORMAL), ("Tissue", box(0, 0, middle, HEIGHT))
    annotate(predicted_project, 2, drawn(*classes))
    predict(predicted_project, stride=32, images=[SECOND], threshold=-1, tissue_class="Tissue")
    annotate(predicted_project, 2, drawn(*classes[:2]))
    summary = evaluate(predicted_project, split="val")
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


def test_an_outline_that_was_the_tissue_of_the_prediction_labels_nothing(
    predicted_project: Path,
) -> None:
    annotate(predicted_project, 2, drawn(("Tumor", TUMOR), ("Tissue", NORMAL)))
    predict(predicted_project, stride=32, images=[SECOND], tissue_class="Tissue")
    assert evaluate(predicted_project, split="val").slides[0].report.normal_cells > 0


def test_where_an_old_result_had_tissue_is_found_anew_and_said(predicted_project: Path) -> None:
    recorded = evaluate(predicted_project, split="val")
    assert not any("found anew" in note for note in recorded.notes)
    file = result(predicted_project, 2) / SCORE_MAP
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in ("scores", "grid")}
    np.savez_compressed(file, **arrays)
    anew = evaluate(predicted_project, split="val")
    assert [note for note in anew.notes if SECOND in note and "found anew" in note]
    assert anew.pixel.values() == recorded.pixel.values()


def test_where_all_tumor_was_scored_nothing_is_said(predicted_project: Path) -> None:
    summary = evaluate(predicted_project, split="val")
    assert not any("was not scored" in note for note in summary.notes)
    assert summary.pixel.iou == summary.pixel.iou_scored
    assert summary.slides[0].report.lesions_not_scored == 0
