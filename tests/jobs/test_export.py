"""What other programs get of a project; `tests/export` looks at what is in the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qprd.bundle.names import INFO_FILE, is_bundle
from qprd.bundle.reading import read_bundle_info
from qprd.cli import app
from qprd.errors import ExitCode, QprdError
from qprd.export.wsinfer import CONFIG_FILE, MODEL_FILE, README_FILE
from qprd.jobs.export import ExportSummary, export_geojson, export_model
from qprd.predictions import Predictions
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.predictions_geojson import predictions_from_geojson
from tests.helpers.drawn_project import NAMES, predict, snapshot, turn, unfinished


@pytest.fixture
def bundle(trained_project: Path) -> Path:
    (folder,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    return folder


def uncalibrate(bundle: Path) -> None:
    file = bundle / INFO_FILE
    document = json.loads(file.read_text(encoding="utf-8"))
    document["scoring"]["calibration"] = None
    file.write_text(json.dumps(document), encoding="utf-8")


def exported_geojson(
    project: Path, *images: str, tiles: bool = False, output: Path | None = None
) -> tuple[ExportSummary, Predictions]:
    with ExchangeProject(project) as opened:
        summary = export_geojson(opened, images=images, tiles=tiles, output=output)
    return summary, predictions_from_geojson(summary.output)


def test_the_newest_bundle_of_a_project_goes_to_its_exports(
    trained_project: Path, bundle: Path
) -> None:
    before = snapshot(trained_project.parent)
    summary = export_model(trained_project, "wsinfer", output=None, weights=None)
    folder = trained_project.parent / "qprd" / "exports" / f"{bundle.name}-wsinfer"
    assert summary.output == folder
    assert {path.name for path in folder.iterdir()} == {MODEL_FILE, CONFIG_FILE, README_FILE}
    after = snapshot(trained_project.parent)
    assert {name: after[name] for name in before} == before
    assert not unfinished(trained_project.parent)


def test_a_bundle_goes_to_this_folder_or_where_it_is_told(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert is_bundle(bundle)
    summary = export_model(bundle, "wsinfer", output=None, weights=None)
    assert (tmp_path / "here" / f"{bundle.name}-wsinfer" / MODEL_FILE).is_file()
    assert not summary.output.is_absolute()
    there = tmp_path / "models" / "user" / "colon"
    export_model(bundle, "wsinfer", output=there, weights=None)
    assert (there / CONFIG_FILE).is_file()


@pytest.mark.slow
def test_a_bundle_becomes_one_onnx_file(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    uncalibrate(bundle)
    file = tmp_path / "model.onnx"
    summary = export_model(bundle, "onnx", output=file, weights=None)
    assert file.is_file()
    assert any("raw scores" in note for note in summary.notes)
    assert not unfinished(tmp_path / "trained")


def test_wsinfer_needs_probabilities(bundle: Path, tmp_path: Path) -> None:
    uncalibrate(bundle)
    with pytest.raises(QprdError, match="raw scores and no probabilities") as raised:
        export_model(bundle, "wsinfer", output=tmp_path / "out", weights=None)
    assert "onnx" in str(raised.value.fix)
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_the_older_files(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / README_FILE).mkdir(parents=True)
    (folder / CONFIG_FILE).write_text("older")
    (folder / MODEL_FILE).write_text("older")
    blocked = tmp_path / "file"
    blocked.touch()
    for place in (folder, blocked):
        with pytest.raises(QprdError, match=r"cannot be (read|written)"):
            export_model(bundle, "wsinfer", output=place, weights=None)
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, README_FILE, MODEL_FILE}
    assert (folder / CONFIG_FILE).read_text() == (folder / MODEL_FILE).read_text() == "older"


def test_other_files_of_a_folder_are_not_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / README_FILE).write_text("of the user")
    with pytest.raises(QprdError, match="holds other files"):
        export_model(bundle, "wsinfer", output=tmp_path / "mine")
    assert (tmp_path / "mine" / README_FILE).read_text() == "of the user"


def test_results_of_another_slide_are_not_exported(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:1])
    folder = trained_project.parent / "qprd" / "results"
    (folder / "1").rename(folder / "2")
    with pytest.raises(QprdError, match=f"image 2, {NAMES[1]}, are of another slide, {NAMES[0]}"):
        exported_geojson(trained_project)


def test_contours_of_an_image_that_was_turned_since_are_not_exported(
    trained_project: Path,
) -> None:
    predict(trained_project, images=NAMES[:1])
    turn(trained_project, 1)
    with pytest.raises(QprdError, match="turned or cropped since it was predicted"):
        exported_geojson(trained_project)


def test_contours_of_one_slide_go_alone_or_with_tiles(trained_project: Path) -> None:
    summary = predict(trained_project, images=NAMES[:1], threshold=0.0)
    assert summary.slides[0].contours > 0
    alone, found = exported_geojson(trained_project)
    assert alone.output == trained_project.parent / "qprd" / "exports" / "1.geojson"
    assert (len(found.contours), len(found.tiles)) == (summary.slides[0].contours, 0)
    assert found.contour_class == "Tumor: qprd"
    both, found = exported_geojson(trained_project, tiles=True)
    assert len(found.tiles) == summary.slides[0].tiles
    assert both.objects == summary.slides[0].contours + summary.slides[0].tiles


def test_one_slide_has_to_be_named_where_several_have_results(
    trained_project: Path, tmp_path: Path
) -> None:
    with pytest.raises(QprdError, match="No slide has results"):
        exported_geojson(trained_project)
    predict(trained_project, images=NAMES[:2])
    with pytest.raises(QprdError, match=f"{NAMES[0]}, {NAMES[1]}"):
        exported_geojson(trained_project)
    summary, _ = exported_geojson(trained_project, NAMES[1], output=tmp_path / "x.geojson")
    assert (summary.exported, summary.output) == (NAMES[1], tmp_path / "x.geojson")
    with pytest.raises(QprdError, match="no results"):
        exported_geojson(trained_project, NAMES[2])


def test_nothing_is_written_through_a_link_out_of_the_project(
    trained_project: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (trained_project.parent / "qprd" / "exports").symlink_to(outside, target_is_directory=True)
    with pytest.raises(QprdError, match="outside the project"):
        export_model(trained_project, "wsinfer", output=None, weights=None)
    assert not list(outside.iterdir())


def test_the_command_takes_a_project_or_a_bundle(
    trained_project: Path, bundle: Path, tmp_path: Path
) -> None:
    def run(*words: object) -> int:
        return CliRunner().invoke(app, ["export", *map(str, words)]).exit_code

    report, folder = tmp_path / "report.json", tmp_path / "out"
    assert run(bundle, "--format", "wsinfer", "--output", folder, "--json", report) == 0
    assert json.loads(report.read_text())["exported"] == read_bundle_info(bundle).name
    predict(trained_project, images=NAMES[:1])
    assert run(trained_project, "--format", "geojson", "--tiles", "--image", NAMES[0]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("bundle", "--format", "wsinfer", "--tiles"),
        ("project", "--format", "onnx", "--image", NAMES[0]),
        ("project", "--format", "geojson", "--weights", "teacher.pth"),
    ],
)
def test_options_of_another_format_are_refused(
    words: tuple[str, ...], trained_project: Path, bundle: Path
) -> None:
    place = {"bundle": bundle, "project": trained_project}[words[0]]
    outcome = CliRunner().invoke(app, ["export", str(place), *words[1:]])
    assert outcome.exit_code == ExitCode.USAGE


def test_a_bundle_has_no_predictions_to_export(bundle: Path) -> None:
    outcome = CliRunner().invoke(app, ["export", str(bundle), "--format", "geojson"])
    assert outcome.exit_code == ExitCode.USAGE
    assert "This is a trained model" in outcome.stderr
    assert "Give the project in which the model predicted" in outcome.stderr
