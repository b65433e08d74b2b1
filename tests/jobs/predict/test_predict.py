from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import box

from qprd.bundle.reading import read_bundle_info
from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.predictions import PROBABILITY, SCORE, is_own_class
from qprd.results.arrays import load_score_map
from qprd.results.folder import SCORE_TIFF, load_lesion_points, load_predictions, load_slide_result
from tests.helpers.drawn_project import (
    HEIGHT,
    MPP,
    NAMES,
    STRIDE,
    TUMOR,
    WIDTH,
    add_slide,
    annotate,
    draw_no_tumor_on,
    drawn,
    edit,
    painted,
    predict,
    result,
    snapshot,
    stored,
    train,
    unfinished,
)


def assert_lesion_points_are(folder: Path, measurement: str) -> None:
    """Lesion points are centers of tiles, the best among them, and score what the tiles measure."""
    found = load_lesion_points(folder)
    values = {
        (min(tile.x + STRIDE / 2, WIDTH), min(tile.y + STRIDE / 2, HEIGHT)): tile.measurements
        for tile in load_predictions(folder).tiles
    }
    assert found.scores[0] == pytest.approx(max(tile[measurement] for tile in values.values()))
    for score, x, y in zip(found.scores, found.x, found.y, strict=True):
        assert score == pytest.approx(values[x, y][measurement])


def test_every_slide_gets_results_that_agree_with_each_other(
    trained_project: Path, real_pictures: None
) -> None:
    summary = predict(trained_project)
    assert [slide.image for slide in summary.slides] == list(NAMES)
    assert (summary.problems, summary.failed, summary.write_back) == ((), 0, None)
    for number, slide in enumerate(summary.slides, start=1):
        folder = result(trained_project, number)
        score_map = load_score_map(folder)
        predictions = load_predictions(folder)
        scores = score_map.scores[~np.isnan(score_map.scores)]
        assert score_map.scores.shape == (math.ceil(HEIGHT / STRIDE), math.ceil(WIDTH / STRIDE))
        assert np.isfinite(scores).all()
        assert slide == load_slide_result(folder)
        assert slide.tiles == len(predictions.tiles) == scores.size > 0
        assert slide.slide_score == pytest.approx(float(scores.max()))
        assert slide.tissue_um2 == pytest.approx(scores.size * (STRIDE * MPP) ** 2)
        for tile in predictions.tiles:
            row, column = round(tile.y / STRIDE), round(tile.x / STRIDE)
            assert (tile.x, tile.y) == (column * STRIDE, row * STRIDE)
            assert tile.width == min(STRIDE, WIDTH - tile.x)
            assert tile.height == min(STRIDE, HEIGHT - tile.y)
            assert tile.measurements[SCORE] == pytest.approx(score_map.scores[row, column])
        assert_lesion_points_are(folder, PROBABILITY)
        with Image.open(folder / "overview.png") as picture:
            picture.verify()
    assert summary.index.is_file()
    assert unfinished(trained_project.parent) == []


def test_a_prediction_changes_nothing_of_the_project(trained_project: Path) -> None:
    before = snapshot(trained_project.parent)
    predict(trained_project, write_back=True)
    after = snapshot(trained_project.parent)
    new = {path for path in after if path not in before}
    assert {path: after[path] for path in before} == before
    ours = {("qprd", part) for part in ("results", "predictions", "backups", "lock")}
    assert {Path(path).parts[:2] for path in new} <= ours


def test_contours_and_metadata_are_as_promised(trained_project: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    summary = predict(trained_project, write_back=True, threshold=0.01)
    for number, slide in enumerate(summary.slides, start=1):
        predictions = stored(trained_project, number)
        assert predictions.contour_class == "Tumor: qprd"
        assert is_own_class(predictions.contour_class)
        assert len(predictions.contours) == slide.contours > 0
        image = box(0, 0, WIDTH, HEIGHT)
        for contour in predictions.contours:
            assert contour.polygon.is_valid
            assert image.covers(contour.polygon)
            measured = contour.measurements
            area_um2 = contour.polygon.area * MPP**2
            assert measured["qprd: area um^2"] == pytest.approx(area_um2, rel=1e-3)
            assert area_um2 >= 5000
            assert 0.01 <= measured["qprd: mean score"] <= measured["qprd: max score"]
        assert predictions.metadata["qprd: bundle"] == bundle.name
        assert predictions.metadata["qprd: threshold"] == "0.0100"
        assert float(predictions.metadata["qprd: slide score"]) == pytest.approx(
            slide.slide_score, abs=1e-4
        )
        assert predictions.metadata["qprd: date"] == slide.created
        assert all(key.startswith("qprd") for key in predictions.metadata)


def test_a_calibrated_bundle_gives_probabilities_that_rise_with_the_score(
    trained_project: Path,
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    info = json.loads((bundle / "bundle.json").read_text())
    info["scoring"]["calibration"] = {"method": "platt", "slope": 2.0, "intercept": -1.0}
    (bundle / "bundle.json").write_text(json.dumps(info))
    summary = predict(trained_project, images=(NAMES[2],))
    assert not any("no probabilities" in note for note in summary.notes)
    tiles = load_predictions(result(trained_project, 3)).tiles
    for tile in tiles:
        expected = 1 / (1 + math.exp(-(2 * tile.measurements[SCORE] - 1)))
        assert tile.measurements[PROBABILITY] == pytest.approx(expected, abs=1e-5)
    assert_lesion_points_are(result(trained_project, 3), PROBABILITY)
    picture = tifffile.imread(result(trained_project, 3) / SCORE_TIFF)
    assert np.count_nonzero(~np.isnan(picture)) == len(tiles)
    for tile in tiles:
        pixel = picture[round(tile.y / STRIDE), round(tile.x / STRIDE)]
        assert pixel == pytest.approx(tile.measurements[PROBABILITY], abs=1e-6)


def test_predicting_again_replaces_results_and_exchange_files(trained_project: Path) -> None:
    first = predict(trained_project, write_back=True, threshold=0.01)
    ids = [tile.id for tile in stored(trained_project, 1).tiles]
    left_over = result(trained_project, 1) / "left over"
    left_over.write_text("")
    again = predict(trained_project, write_back=True, threshold=6)
    assert first.write_back is not None
    assert again.write_back is not None
    assert sum(r.replaced for r in first.write_back.written) == 0
    assert sum(r.replaced for r in again.write_back.written) == sum(
        r.tiles + r.contours for r in first.write_back.written
    )
    assert [tile.id for tile in stored(trained_project, 1).tiles] == ids
    assert stored(trained_project, 1).contours == ()
    assert not left_over.exists()


def test_without_a_threshold_there_are_tiles_and_no_contours_until_one_is_given(
    project: Path,
) -> None:
    draw_no_tumor_on(project, 2)
    bundle = train(project).bundle
    summary = predict(project, write_back=True)
    assert summary.threshold is None
    assert any("--threshold" in line for line in summary.lines())
    predictions = stored(project, 3)
    assert predictions.tiles
    assert predictions.contours == ()
    assert all(PROBABILITY not in tile.measurements for tile in predictions.tiles)
    (note,) = [note for note in summary.notes if "no probabilities" in note]
    assert "0 of tumor and 8 of normal" in note
    assert "qprd: threshold" not in predictions.metadata
    assert "no tested threshold" in " ".join(summary.index.read_text().split())
    given = predict(project, threshold=0.01, bundle=bundle)
    assert given.threshold == 0.01
    assert all(slide.contours for slide in given.slides)


def test_another_rule_chooses_the_threshold_without_a_training(trained_project: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    validation = read_bundle_info(bundle).scoring.validation
    assert validation is not None
    summary = predict(trained_project, operating_point="sensitivity=1", images=(NAMES[2],))
    assert summary.threshold == min(validation.tumor)
    assert load_slide_result(result(trained_project, 3)).threshold == summary.threshold
    (note,) = [note for note in summary.notes if note.startswith("operating point sensitivity=1:")]
    assert "sensitivity 1.000" in note
    with pytest.raises(QprdError, match="false positives were not counted") as caught:
        predict(trained_project, operating_point="fp-per-slide=1")
    assert "--operating-point fp-per-slide=1" in (caught.value.fix or "")


def test_an_earlier_bundle_has_only_its_own_threshold(project: Path) -> None:
    bundle = train(project, recipe="paper").bundle
    info = json.loads((bundle / "bundle.json").read_text())
    network, scoring, training = (info.pop(name) for name in ("network", "scoring", "training"))
    del scoring["by"], scoring["validation"], training["config"]["operating_point"]
    del network["model"], info["number"]
    training["training_slides"] = [slide["name"] for slide in training.pop("slides")]
    training["validation_slides"] = [slide["name"] for slide in training["validation_slides"]]
    flat = {**info, **network, **scoring, **training, "format": 1}
    (bundle / "bundle.json").write_text(json.dumps(flat))
    with pytest.raises(QprdError, match="earlier qprd"):
        predict(project, operating_point="youden", images=(NAMES[2],))
    summary = predict(project, images=(NAMES[2],))
    assert summary.threshold == scoring["threshold"]
    assert load_slide_result(result(project, 3)).scoring == "patches"


def test_the_newest_bundle_is_taken_and_named_unless_one_is_given(
    trained_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (older,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    newer = train(trained_project, seed=1).bundle
    caplog.set_level("INFO", logger="qprd")
    summary = predict(trained_project, images=(NAMES[2],))
    assert summary.bundle == newer
    assert (
        f"Bundle {newer.name}, threshold {summary.threshold:.4g}, scoring by {summary.scoring}."
        in caplog.messages
    )
    assert summary.scoring == "fields"
    assert predict(trained_project, images=(NAMES[2],), bundle=older).bundle == older
    assert load_slide_result(result(trained_project, 3)).bundle == older.name


def test_without_a_bundle_it_says_to_train_one(project: Path) -> None:
    with pytest.raises(QprdError, match="no bundle") as caught:
        predict(project)
    assert "qprd train" in (caught.value.fix or "")


def test_only_the_named_images_are_predicted(trained_project: Path) -> None:
    summary = predict(trained_project, images=(NAMES[1],))
    assert [slide.image for slide in summary.slides] == [NAMES[1]]
    assert not result(trained_project, 1).exists()


def test_a_broken_slide_is_a_problem_and_the_others_are_done(
    trained_project: Path, tmp_path: Path, shared_data: Path
) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes((shared_data / "slides" / "broken.svs").read_bytes())
    add_slide(trained_project, broken, 100, 100)
    summary = predict(trained_project, write_back=True)
    assert [slide.image for slide in summary.slides] == list(NAMES)
    assert len(summary.problems) == summary.failed == 1
    assert summary.problems[0].startswith("broken.svs: ")
    assert summary.write_back is not None
    assert len(summary.write_back.written) == 3


def test_only_broken_slides_are_an_error_that_names_them(
    trained_project: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"not a slide")
    add_slide(trained_project, broken, 100, 100)
    with pytest.raises(QprdError, match=r"broken\.svs"):
        predict(trained_project, images=("broken.svs",))
    assert not (trained_project.parent / "qprd" / "results").exists()


def test_an_empty_slide_has_no_score_and_does_no_harm(
    trained_project: Path, tmp_path: Path
) -> None:
    write_pyramidal_tiff(np.full((600, 500, 3), 244, np.uint8), tmp_path / "white.tif", MPP)
    add_slide(trained_project, tmp_path / "white.tif", 500, 600)
    summary = predict(trained_project, write_back=True, images=("white.tif",))
    (slide,) = summary.slides
    assert (slide.slide_score, slide.tiles, slide.contours) == (None, 0, 0)
    assert summary.failed == 0
    assert "no tissue" in summary.lines()[0]
    assert stored(trained_project, 4).tiles == ()
    assert "qprd: slide score" not in stored(trained_project, 4).metadata
    assert "white.tif" in summary.index.read_text()


def test_a_slide_smaller_than_a_patch_is_scored(trained_project: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = np.full((50, 40, 3), 244, np.uint8)
    image[5:45, 5:35] = random.integers(60, 190, (40, 30, 3)) * np.array([1, 0.5, 0.8])
    write_pyramidal_tiff(image, tmp_path / "tiny.tif", MPP)
    add_slide(trained_project, tmp_path / "tiny.tif", 40, 50)
    summary = predict(trained_project, images=("tiny.tif",), min_tissue=0.0)
    assert summary.slides[0].tiles <= 1
    assert load_score_map(result(trained_project, 4)).scores.shape == (1, 1)


@pytest.mark.slow
def test_the_slide_without_mpp_needs_assume_mpp(trained_project: Path, shared_data: Path) -> None:
    slide = shared_data / "slides" / "tcga-cr-7395_no-mpp.svs"
    add_slide(trained_project, slide, 4443, 3567, mpp=None)
    with pytest.raises(QprdError, match="resolution") as caught:
        predict(trained_project, images=(slide.name,))
    assert "--assume-mpp" in str(caught.value)
    summary = predict(trained_project, images=(slide.name,), assume_mpp=0.5, stride=128)
    assert summary.slides[0].mpp == 0.5
    assert summary.slides[0].tiles > 10


def test_a_slide_of_another_resolution_is_scored_at_the_bundles(
    trained_project: Path, tmp_path: Path
) -> None:
    from tests.helpers.drawn_project import painted

    large = np.repeat(np.repeat(painted(0), 2, axis=0), 2, axis=1)
    write_pyramidal_tiff(large, tmp_path / "40x.tif", MPP / 2)
    add_slide(trained_project, tmp_path / "40x.tif", 2 * WIDTH, 2 * HEIGHT, MPP / 2)
    predict(trained_project, images=(NAMES[0], "40x.tif"))
    coarse, fine = (load_score_map(result(trained_project, entry)) for entry in (1, 4))
    assert (fine.cell_px, fine.mpp) == (2 * coarse.cell_px, coarse.mpp / 2)
    assert fine.scores.shape == coarse.scores.shape
    both = ~np.isnan(fine.scores) & ~np.isnan(coarse.scores)
    assert both.sum() > 0.8 * (~np.isnan(coarse.scores)).sum()
    assert np.abs(fine.scores - coarse.scores)[both].max() < 0.5


# --- strangers ------------------------------------------------------------------------------

Change = Callable[[dict], object]  # type: ignore[type-arg]


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["training"]["config"].update(tumor_class=[]),
        lambda info: info["training"]["config"].update(tumor_class=["\n"], unknown=1),
        lambda info: info["training"].update(config={"teacher": 3}),
        lambda info: info["scoring"].update(calibration={"slope": "big"}),
        lambda info: info["scoring"].update(calibration={"slope": float("1e400"), "intercept": 0}),
        lambda info: info["scoring"].update(calibration={}),
        lambda info: info["scoring"]["validation"].update(tumor=[None]),
        lambda info: info["training"]["config"].update(operating_point="best"),
        lambda info: info.update(name="../../escaped"),
        lambda info: info["scoring"].update(threshold="high"),
        lambda info: info["network"].update(patch_px=100_000),
        lambda info: info["network"].update(mpp=0),
        lambda info: info["network"]["teacher"].update(name="timm:../../x"),
        lambda info: info.update(format=99),
    ],
)
def test_a_hostile_bundle_is_refused_with_a_message(
    trained_project: Path, tmp_path: Path, change: Change
) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    info = json.loads((bundle / "bundle.json").read_text())
    change(info)
    (bundle / "bundle.json").write_text(json.dumps(info))
    before = snapshot(tmp_path)
    with pytest.raises(QprdError):
        predict(trained_project, bundle=bundle, images=(NAMES[2],))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["training"]["config"].update(tumor_class=["<script>alert(1)</script>"]),
        lambda info: info["training"]["config"].update(min_tissue=0.0),
        lambda info: info.update(name="[red]<b>bold"),
        lambda info: info["training"].update(slides=["<img src=x>"], metrics={"val_auroc": 1e300}),
        lambda info: info["scoring"].update(threshold=-1e308),
        lambda info: info["network"].update(mpp=1e-6),
        lambda info: info["network"].update(mpp=1e9),
    ],
)
def test_an_odd_bundle_does_no_harm(trained_project: Path, tmp_path: Path, change: Change) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    info = json.loads((bundle / "bundle.json").read_text())
    change(info)
    (bundle / "bundle.json").write_text(json.dumps(info))
    try:
        summary = predict(trained_project, bundle=bundle, images=(NAMES[2],), write_back=True)
    except QprdError:
        return
    page = summary.index.read_text()
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert "<img src=x>" not in page


def test_hostile_image_names_are_only_text(
    trained_project: Path, tmp_path: Path, real_pictures: None
) -> None:
    names = [
        "../../[red]up\n<script>alert(1)</script>.tif",
        "$\\frac{1}{0}$" + "x" * 3000,
        "\ud800",
    ]

    def rename(root):  # type: ignore[no-untyped-def]
        for image, name in zip(root["images"], names, strict=True):
            image["imageName"] = name

    edit(trained_project, rename)
    summary = predict(trained_project, write_back=True)
    assert summary.failed == 0
    assert "<script>alert" not in summary.index.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"trained"}
    assert json.loads((result(trained_project, 1) / "slide.json").read_text())["image"] == names[0]


def test_a_slide_coarser_than_the_model_is_noted(trained_project: Path, tmp_path: Path) -> None:
    pixels = painted(5)[::2, ::2]
    write_pyramidal_tiff(pixels, tmp_path / "coarse.tif", 2 * MPP)
    add_slide(trained_project, tmp_path / "coarse.tif", pixels.shape[1], pixels.shape[0], 2 * MPP)
    summary = predict(trained_project, images=("coarse.tif", NAMES[0]))
    (note,) = [note for note in summary.notes if note.startswith("coarse.tif: 1 um/px is coarser")]
    assert f"note: {note}" in summary.lines()
    trained = train(trained_project, mpp=MPP / 2, patch_px=64)
    assert sum("is coarser than the model's" in note for note in trained.notes) == 2


def test_the_smallest_piece_of_tissue_is_that_of_the_training(trained_project: Path) -> None:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    file = bundle / "bundle.json"
    document = json.loads(file.read_text())
    document["training"]["config"]["tissue_min_area_um2"] = 1e9
    file.write_text(json.dumps(document))
    scores = [slide.slide_score for slide in predict(trained_project).slides]
    assert scores == [None] * len(scores)
    asked = predict(trained_project, tissue_min_area_um2=1000.0)
    assert all(slide.slide_score is not None for slide in asked.slides)


def test_what_is_drawn_as_tissue_is_scored_and_nothing_else(trained_project: Path) -> None:
    outline = box(0, 0, WIDTH, 256)
    annotate(trained_project, 1, drawn(("Tissue", outline)))
    summary = predict(trained_project, tissue_class="Tissue", images=NAMES[:2], uncertain=2)
    notes = "\n".join(summary.notes)
    assert f"{NAMES[1]}: no area of class 'Tissue' is drawn" in notes
    assert f"{NAMES[0]}: no area" not in notes
    tiles = load_predictions(result(trained_project, 1)).tiles
    assert {(tile.x, tile.y) for tile in tiles} == {
        (x, y) for x in range(0, WIDTH, STRIDE) for y in (0, 128)
    }
    assert any(region.image == NAMES[0] for region in summary.review)

    (left_out,) = [note for note in summary.notes if "outside of what is drawn" in note]
    slide = load_slide_result(result(trained_project, 1))
    assert slide.unscored_mm2["outside_drawn_tissue"] > 0.04
    assert left_out.removeprefix(f"{NAMES[0]}: ") in slide.notes
    assert slide.notes[-1] in summary.index.read_text(encoding="utf-8")


def test_the_tissue_class_is_that_of_the_training(trained_project: Path) -> None:
    annotate(trained_project, 1, drawn(("Tissue", box(0, 0, WIDTH, HEIGHT)), ("Tumor", TUMOR)))
    training = train(trained_project, tissue_class="Tissue")
    assert any("no area of class 'Tissue' is drawn" in note for note in training.notes)
    assert not any("used as neither" in note for note in training.notes)
    slides = predict(trained_project, images=NAMES[:2]).slides
    assert slides[0].tiles == math.ceil(WIDTH / STRIDE) * math.ceil(HEIGHT / STRIDE)
    assert slides[1].tiles < slides[0].tiles
