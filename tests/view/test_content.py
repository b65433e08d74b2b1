"""What the pages show is what the prediction wrote, and what is judged there is learned from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Polygon
from starlette.testclient import TestClient

from qprd.bundle.reading import newest_bundle, read_bundle_info
from qprd.demo.slides import write_pyramidal_tiff
from qprd.predictions import CONTOUR_CLASS, PredictedContour
from qprd.results.arrays import SCORE_MAP, load_score_map
from qprd.results.folder import load_predictions, load_slide_result
from qprd.slides.surface import Surface
from qprd.view.overlays import raw_threshold
from tests.helpers.damaged_slide import change_slide_of
from tests.helpers.drawn_project import (
    MPP,
    NAMES,
    annotate,
    edit,
    exported,
    outlines,
    painted,
    predict,
    result,
    train,
)
from tests.view.conftest import AREA_UM2, evaluate_with_mistakes, viewer


def regions_of(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/slides/1").json()["regions"]
    return found


def judge(client: TestClient, region: str, verdict: str, note: str = "") -> Any:
    body = {"region": region, "verdict": verdict, "note": note, "name": "Ana"}
    return client.post("/slides/1/judgments", json=body)


def classify_in_qupath(project: Path, contour: PredictedContour, class_name: str) -> None:
    """Export the annotations of the first image, the contour with this class among them."""
    drawn: Any = outlines()
    feature: Any = exported([(class_name, contour.polygon)])["features"]
    drawn["features"].append({**feature[0], "id": contour.id})
    annotate(project, 1, drawn)


def bundle_folder(project: Path) -> Path:
    return project.parent / "qprd" / "bundles"


def change_figures(project: Path, **changes: object) -> None:
    """Change ``slide.json`` of the first result; None takes a value out."""
    file = result(project, 1) / "slide.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: v for name, v in values.items() if v is not None}))


def change_arrays(project: Path, **changes: NDArray[Any] | None) -> None:
    """Change the arrays of the first result; None takes one out."""
    file = result(project, 1) / SCORE_MAP
    with np.load(file) as archive:
        arrays = dict(archive) | changes
    known: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    np.savez_compressed(file, **known)


def forget_what_is_recorded(project: Path) -> None:
    """Leave of the first result what an earlier qprd recorded."""
    change_figures(project, min_area_um2=None, tolerance_um=None, tissue_class=None)
    change_arrays(project, surface=None, downsample=None)


def alpha_of(client: TestClient, address: str) -> NDArray[np.uint8]:
    image = np.asarray(Image.open(io.BytesIO(client.get(address).content)))
    return image[..., 3]


def area(rings: list[list[float]]) -> float:
    return Polygon(np.reshape(rings[0], (-1, 2))).area


def test_slides_are_listed_with_their_figures(client: TestClient, predicted: Path) -> None:
    listed = client.get("/project").json()["slides"]
    assert [row["name"] for row in listed] == ["first.tif", "second.tif", "third.tif"]
    assert [row.get("split") for row in listed] == ["train", "val", None]
    for row in listed:
        figures = load_slide_result(result(predicted, int(row["id"])))
        assert row["score"] == figures.slide_score
        assert row["tumorMm2"] == pytest.approx(figures.tumor_um2 / 1e6)
        assert client.get(f"/slides/{row['id']}/thumbnail").headers["content-type"] == "image/jpeg"


def test_a_new_prediction_is_seen(client: TestClient, predicted: Path) -> None:
    before = client.get("/project").json()["slides"][0]["tumorMm2"]
    assert before > 0
    predict(predicted, threshold=1e6, stride=32)
    assert client.get("/project").json()["slides"][0]["tumorMm2"] == 0
    assert regions_of(client) == []


def test_an_image_without_results_is_shown_without_them(project: Path) -> None:
    with viewer(project) as client:
        assert "score" not in client.get("/project").json()["slides"][0]
        found = client.get("/slides/1").json()
        assert found["problems"] == ["Results: This image is not predicted yet. Run qprd predict."]
        assert {one["class"] for one in found["annotations"]} == {"Tumor", "Normal"}
        assert client.get("/slides/1/heatmap").status_code == 404


def test_a_damaged_result_costs_no_other(client: TestClient, predicted: Path) -> None:
    (result(predicted, 1) / "slide.json").write_text("{")
    rows = client.get("/project").json()["slides"]
    assert "damaged" in rows[0]["problem"]
    assert rows[1]["score"] is not None
    assert client.get("/slides/2").json()["regions"]


def test_the_heatmap_has_a_pixel_a_cell(client: TestClient, predicted: Path) -> None:
    found = client.get("/slides/1").json()
    scores = load_score_map(result(predicted, 1)).scores
    image = np.asarray(Image.open(io.BytesIO(client.get("/slides/1/heatmap").content)))
    assert image.shape == (*scores.shape, 4)
    assert np.array_equal(image[..., 3] == 0, np.isnan(scores))
    assert found["heatmap"]["pixel"] == load_score_map(result(predicted, 1)).cell_px
    luma = image[..., :3].astype(float).sum(axis=2)
    assert luma.flat[np.nanargmax(scores)] > luma.flat[np.nanargmin(scores)]


def test_what_is_not_scored_is_striped_by_the_record_of_the_result(predicted: Path) -> None:
    with viewer(predicted) as client:
        found = client.get("/slides/1").json()
        striped = alpha_of(client, "/slides/1/unscored")
        change_arrays(predicted, surface=np.full((9, 9), Surface.PEN, np.uint8))
        assert (alpha_of(client, "/slides/1/unscored") > 0).all()
        forget_what_is_recorded(predicted)
        assert np.array_equal(alpha_of(client, "/slides/1/unscored"), striped)
        told = client.get("/slides/1").json()["notes"]
    height, width = striped.shape
    assert width / height == pytest.approx(found["width"] / found["height"], rel=0.1)
    assert [note for note in told if note not in found["notes"] and "earlier qprd" in note]


def test_contours_have_the_settings_of_the_record(client: TestClient, predicted: Path) -> None:
    change_figures(predicted, min_area_um2=1e9)
    assert client.get("/slides/1/contours?threshold=0").json()["contours"] == []
    forget_what_is_recorded(predicted)
    assert client.get("/slides/1/contours?threshold=0").json()["contours"] != []


def test_contours_at_a_threshold_are_those_of_a_prediction(
    client: TestClient, predicted: Path
) -> None:
    scores = load_score_map(result(predicted, 1)).scores
    threshold = float(np.nanquantile(scores, 0.7))
    drawn = client.get(f"/slides/1/contours?threshold={threshold!r}").json()
    assert drawn["created"] == client.get("/slides/1").json()["created"]
    predict(predicted, min_area_um2=AREA_UM2, stride=32, threshold=threshold)
    written = load_predictions(result(predicted, 1)).contours
    assert len(drawn["contours"]) == len(written) > 0
    for rings, contour in zip(drawn["contours"], written, strict=True):
        assert area(rings) == pytest.approx(Polygon(contour.polygon.exterior).area, rel=1e-3)
    figures = load_slide_result(result(predicted, 1))
    assert drawn["tumorMm2"] == pytest.approx(figures.tumor_um2 / 1e6, rel=1e-6)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_a_probability_is_the_lowest_score_that_has_it(
    client: TestClient, predicted: Path, probability: float
) -> None:
    score_map = load_score_map(result(predicted, 1))
    info = read_bundle_info(newest_bundle(bundle_folder(predicted)))
    probability_of = info.scoring.probability_of
    assert probability_of is not None
    threshold = raw_threshold(probability, score_map, probability_of)
    known = score_map.scores[~np.isnan(score_map.scores)].astype(np.float64)
    above = known[probability_of(known) >= probability]
    assert np.array_equal(np.sort(above), np.sort(known[known >= threshold])) or not above.size
    answer = client.get(f"/slides/1/contours?probability={probability}").json()
    assert answer["threshold"] == threshold


def test_regions_come_first_then_contours_the_doubtful_first(client: TestClient) -> None:
    regions = regions_of(client)
    kinds = [region["isContour"] for region in regions]
    assert kinds == sorted(kinds)
    assert True in kinds
    means = [region["probability"] for region in regions if region["isContour"]]
    assert means == sorted(means)


def test_a_judgment_is_stored_shown_and_learned_from(client: TestClient, predicted: Path) -> None:
    ids = [region["id"] for region in regions_of(client)]
    assert judge(client, ids[0], "accepted", note="<b>sure</b>").status_code == 200
    if len(ids) > 1:
        judge(client, ids[1], "rejected")
    regions = {region["id"]: region for region in regions_of(client)}
    assert regions[ids[0]]["verdict"] == "accepted"
    assert (regions[ids[0]]["note"], regions[ids[0]]["by"]) == ("<b>sure</b>", "Ana")
    drawn = client.get("/slides/1").json()["annotations"]
    assert len(drawn) == 2 + len(ids[:2])
    assert train(predicted).origin.review.accepted == 1
    lines = (predicted.parent / "qprd" / "reviews" / "1.jsonl").read_text().splitlines()
    classes = [json.loads(line)["feature"]["properties"]["classification"] for line in lines]
    assert classes[0]["name"] == "Tumor"
    assert judge(client, ids[0], "none").json()
    assert len(client.get("/slides/1").json()["annotations"]) == 1 + len(ids[:2])


def test_what_was_judged_in_qupath_is_changed_only_there(
    client: TestClient, predicted: Path
) -> None:
    contour = load_predictions(result(predicted, 1)).contours[0]
    classify_in_qupath(predicted, contour, "Normal")
    region = next(one for one in regions_of(client) if one["id"] == contour.id)
    assert (region["verdict"], region["inQuPath"]) == ("rejected", True)
    answer = judge(client, contour.id, "accepted")
    assert answer.status_code == 409
    assert "judged in QuPath" in answer.json()["problem"]
    assert not (predicted.parent / "qprd" / "reviews").exists()


def test_a_pending_region_in_qupath_can_be_judged(client: TestClient, predicted: Path) -> None:
    contour = load_predictions(result(predicted, 1)).contours[0]
    classify_in_qupath(predicted, contour, CONTOUR_CLASS)
    assert judge(client, contour.id, "rejected").status_code == 200


def test_mistakes_lead_to_their_slides(client: TestClient, predicted: Path) -> None:
    summary = evaluate_with_mistakes(predicted)
    found = client.get("/project").json()
    assert found["pages"] == ["index.html", "evaluation.html"]
    mistakes = found["mistakes"]["falsePositives"] + found["mistakes"]["misses"]
    worst = [*summary.false_positives, *summary.misses]
    assert [(one["id"], one["x"], one["y"]) for one in mistakes] == [
        (summary.slides[index].entry.id, mistake.x, mistake.y) for index, mistake in worst
    ]
    assert mistakes


def test_mistakes_on_slides_that_are_gone_lead_nowhere(client: TestClient, predicted: Path) -> None:
    file = evaluate_with_mistakes(predicted).page.with_name("evaluation.json")
    report = json.loads(file.read_text())
    for mistake in (*report["false_positives"], *report["misses"]):
        mistake["entry_id"] = "../gone"
    file.write_text(json.dumps(report))
    mistakes = client.get("/project").json()["mistakes"]
    assert (mistakes["falsePositives"], mistakes["misses"]) == ([], [])


def test_mistakes_of_another_bundle_are_not_shown_over_this_ones_map(
    client: TestClient, predicted: Path
) -> None:
    file = evaluate_with_mistakes(predicted).page.with_name("evaluation.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bundle": "another"}))
    mistakes = client.get("/project").json()["mistakes"]
    assert (mistakes["falsePositives"], mistakes["misses"]) == ([], [])


def test_the_result_of_the_bundle_before_is_kept_beside_that_of_now(predicted_twice: Path) -> None:
    bundles = sorted(path.name for path in bundle_folder(predicted_twice).iterdir())
    with viewer(predicted_twice) as client:
        found, other = client.get("/slides/1").json(), client.get("/slides/2").json()
        earlier = found["earlier"]
        assert [earlier["bundle"], found["bundle"]] == bundles
        assert (other["bundle"], other["earlier"]) == (bundles[0], None)
        assert client.get("/slides/2/heatmap?of=earlier").status_code == 404
        heatmaps = [client.get(f"/slides/1/heatmap?of={of}").content for of in ("now", "earlier")]
        assert heatmaps[0] != heatmaps[1]
        drawn = client.get(f"/slides/1/contours?of=earlier&threshold={earlier['threshold']}")
        assert drawn.json()["tumorMm2"] == pytest.approx(earlier["tumorMm2"])
        assert client.get("/slides/1/unscored?of=earlier").status_code == 200
    predict(predicted_twice, stride=32, images=NAMES[:1], threshold=0.5)
    with viewer(predicted_twice) as client:
        assert client.get("/slides/1").json()["earlier"] == earlier
    predict(predicted_twice, stride=32, bundle=bundle_folder(predicted_twice) / bundles[0])
    with viewer(predicted_twice) as client:
        assert client.get("/slides/1").json()["earlier"]["bundle"] == bundles[1]


def test_a_result_cannot_name_a_bundle_elsewhere(predicted: Path) -> None:
    file = result(predicted, 1) / "slide.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "bundle": f"../bundles/{values['bundle']}"}))
    with viewer(predicted) as client:
        assert client.get("/slides/1").json()["calibrated"] is False
        assert client.get("/slides/2").json()["calibrated"] is True


def test_a_slide_that_is_replaced_meanwhile_gets_no_heatmap_of_another(
    predicted: Path, tmp_path: Path
) -> None:
    change_slide_of(predicted, 1, tmp_path, lambda copy: None)
    with viewer(predicted) as client:
        assert client.get("/slides/1/heatmap").status_code == 200
        write_pyramidal_tiff(painted(7), tmp_path / NAMES[0], MPP)
        answer = client.get("/slides/1/heatmap")
        assert answer.status_code == 409
        assert "another slide" in answer.json()["problem"]


def test_an_image_whose_slide_is_gone_is_told(predicted: Path) -> None:
    def move(root: Any) -> None:
        builder = root["images"][0]["serverBuilder"]
        builder["uri"] = "file:/nowhere/first.tif"

    edit(predicted, move)
    with viewer(predicted) as client:
        answer = client.get("/slides/1")
        assert answer.status_code == 409
        assert "not where the project says" in answer.json()["problem"]
        assert client.get("/slides/1/thumbnail").status_code == 409
