from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

import qprd
from qprd.api.arguments import training_settings
from qprd.jobs.predict.model import Model
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import load_score_map
from qprd.results.folder import RESULT_FILES, REVIEW
from tests.helpers.drawn_project import (
    NAMES,
    PREDICTION,
    STRIDE,
    TRAINING,
    draw_no_tumor_on,
    environment,
    result,
    run_qprd,
)

THIRD = NAMES[2]


def objects_in(folder: Path) -> list[dict[str, object]]:
    """Features of the results of a slide, without their ids."""
    features = json.loads((folder / "predictions.geojson").read_text())["features"]
    return [{**feature, "id": None} for feature in features]


@pytest.fixture
def slide(trained_project: Path) -> Path:
    with ExchangeProject(trained_project) as project:
        path = project.entries()[2].source.path
    assert path is not None
    return path


@pytest.fixture
def model(trained_project: Path) -> Model:
    (bundle,) = (trained_project.parent / "qprd" / "bundles").iterdir()
    return qprd.load_model(bundle, device="cpu")


def test_importing_qprd_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import qprd; dir(qprd)"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert "qprd" in loaded
    assert loaded.isdisjoint({"torch", "jpype", "paquo", "matplotlib", "numpy", "pydantic"})


def test_every_public_name_is_there_and_no_other() -> None:
    for name in qprd.__all__:
        assert getattr(qprd, name) is not None
        assert name in dir(qprd)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = qprd.trian


def test_training_and_prediction_take_settings_named_like_the_options(project: Path) -> None:
    with qprd.open_project(project.parent, backend="exchange") as opened:
        model = qprd.train(opened, **TRAINING, seed=3, progress=False)
        summary = qprd.predict(opened, model, **PREDICTION, image=THIRD, progress=False)
    assert model.info.training.config["seed"] == 3
    assert model.training is not None
    assert (model.bundle, model.threshold) == (
        model.training.bundle,
        model.training.validation.threshold,
    )
    assert model.teacher == "efficientnet_lite0"
    assert model.name in repr(model)
    assert [slide.image for slide in summary.slides] == [THIRD]
    assert summary.bundle == model.bundle


def test_keyword_arguments_win_over_a_configuration(project: Path, tmp_path: Path) -> None:
    with qprd.open_project(project, backend="exchange") as opened:
        first = qprd.train(opened, qprd.TrainConfig(**TRAINING, seed=1), seed=2, progress=False)
        file = tmp_path / "settings.toml"
        file.write_text("[train]\nseed = 5\nnormal = 18\n")
        second = qprd.train(opened, file, parent=first, normal=17, device="cpu", progress=False)
    assert first.info.training.config["seed"] == 2
    assert first.info.training.config["normal"] == TRAINING["normal"]
    assert [second.info.training.config[name] for name in ("seed", "normal", "tumor")] == [5, 17, 8]
    assert second.info.training.ancestors[0].name == first.name


def test_a_configuration_leaves_open_what_depends_on_the_teacher() -> None:
    config = training_settings(qprd.TrainConfig(normal=7), {"teacher": "efficientnet_lite0"}, None)
    assert (config.normal, config.patch_px, config.mpp) == (7, 128, 0.5)


@pytest.mark.parametrize(
    ("settings", "fix"), [({"epoch": 3}, "'epochs'"), ({"epochs": 0}, "Change the option")]
)
def test_a_setting_that_cannot_be_used_is_a_qprd_error(
    project: Path, settings: dict[str, Any], fix: str
) -> None:
    with (
        qprd.open_project(project, backend="exchange") as opened,
        pytest.raises(qprd.QprdError) as caught,
    ):
        qprd.train(opened, **settings)
    assert fix in (caught.value.fix or "")


def test_a_slide_is_scored_as_the_command_scores_it(
    trained_project: Path, model: Model, slide: Path, tmp_path: Path
) -> None:
    done = run_qprd(
        "predict", trained_project, "--backend", "exchange", "--image", THIRD, "--stride", STRIDE
    )
    assert done.returncode == 0, done.stderr
    by_command, by_api = result(trained_project, 3), tmp_path / "out"
    found = model.score(slide, stride=STRIDE, progress=False)
    found.save(by_api)
    np.testing.assert_array_equal(found.scores, load_score_map(by_command).scores)
    names = {path.name for path in by_api.iterdir()}
    assert names == {path.name for path in by_command.iterdir()} == RESULT_FILES - {REVIEW}
    for name in ("score_map.ome.tif", "detections.csv"):
        assert (by_api / name).read_bytes() == (by_command / name).read_bytes(), name
    with (
        Image.open(by_api / "overview.png") as drawn,
        Image.open(by_command / "overview.png") as expected,
    ):
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    # The ids of objects are those of the entry, and times differ.
    objects = [
        [{**feature, "id": None} for feature in json.loads(text)["features"]]
        for text in (
            (folder / "predictions.geojson").read_text() for folder in (by_api, by_command)
        )
    ]
    assert objects[0] == objects[1]
    own, others = (
        json.loads((folder / "slide.json").read_text()) for folder in (by_api, by_command)
    )
    assert own["entry_id"] == THIRD
    for key in ("entry_id", "created", "seconds"):
        del own[key], others[key]
    # Outside a project nothing says where the slide's file is.
    assert own["made_from"].pop("file") == ""
    assert others["made_from"].pop("file")
    assert own == others


def test_scores_and_probabilities_lie_on_one_grid(model: Model, slide: Path) -> None:
    found = model.score(slide, stride=STRIDE, progress=False)
    assert found.scores.shape == found.probability.shape == (6, 5)
    np.testing.assert_array_equal(np.isnan(found.scores), np.isnan(found.probability))
    assert 0 <= np.nanmin(found.probability) <= np.nanmax(found.probability) <= 1
    assert (found.cell_px, found.mpp) == (STRIDE, 0.5)


def test_contours_are_drawn_at_the_models_threshold_or_another(model: Model, slide: Path) -> None:
    found = model.score(slide, stride=STRIDE, progress=False)
    assert found.threshold == model.threshold
    assert found.contours() == found.contours(model.threshold)
    low = float(np.nanmin(found.scores))
    everything = sum(polygon.area for polygon in found.contours(low))
    assert everything > sum(polygon.area for polygon in found.contours(low + 0.1))
    assert found.contours(low, min_area_um2=1e9) == []


def test_a_plot_shows_slide_scores_and_contours(model: Model, slide: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    found = model.score(slide, stride=STRIDE, threshold=0.1, progress=False)
    axes = found.plot(Figure().subplots())
    tissue, scores = axes.images
    pixels, shown = tissue.get_array(), scores.get_array()
    assert pixels is not None
    assert shown is not None
    assert pixels.ndim == 3
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.isnan(found.scores))
    outlines = [line for part in axes.collections for line in part.get_paths()]
    assert len(outlines) >= len(found.contours()) > 0
    assert found.plot() is not axes


def test_a_model_without_validation_says_why_it_has_neither_threshold_nor_probability(
    project: Path, slide: Path, tmp_path: Path
) -> None:
    draw_no_tumor_on(project, 2)
    with qprd.open_project(project, backend="exchange") as opened:
        model = qprd.train(opened, **TRAINING, progress=False)
    assert model.threshold is None
    found = model.score(slide, stride=STRIDE, progress=False)
    with pytest.raises(qprd.QprdError, match="no probabilities"):
        _ = found.probability
    with pytest.raises(qprd.QprdError, match="no threshold") as caught:
        found.contours()
    assert "threshold=" in (caught.value.fix or "")
    assert found.contours(0.0)
    found.plot()
    found.save(tmp_path / "out")


def test_results_never_replace_other_files(model: Model, slide: Path, tmp_path: Path) -> None:
    found = model.score(slide, stride=STRIDE, progress=False)
    found.save(tmp_path / "out")
    found.save(tmp_path / "out")
    mine = tmp_path / "out" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(qprd.QprdError, match=r"notes\.txt"):
        found.save(tmp_path / "out")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({"uncertain": 3}, "mpp"),
        ({"devices": 2}, "mpp"),
        ({"device": "mps"}, "load_model"),
        ({"strides": 64}, "stride"),
    ],
)
def test_settings_that_are_none_of_a_slide_are_refused(
    model: Model, slide: Path, settings: dict[str, Any], fix: str
) -> None:
    with pytest.raises(qprd.QprdError) as caught:
        model.score(slide, progress=False, **settings)
    assert fix in (caught.value.fix or "")


def test_a_loaded_model_takes_no_other_device(project: Path, model: Model) -> None:
    with (
        qprd.open_project(project, backend="exchange") as opened,
        pytest.raises(qprd.QprdError, match="loaded with other settings: precision, weights"),
    ):
        qprd.predict(
            opened, model, device="cpu", precision="16", weights="other.pth", progress=False
        )


def test_a_slide_without_a_resolution_needs_one(model: Model, tmp_path: Path, slide: Path) -> None:
    with Image.open(slide) as image:
        image.convert("RGB").save(tmp_path / "plain.png")
    with pytest.raises(qprd.QprdError, match="resolution"):
        model.score(tmp_path / "plain.png", progress=False)
    found = model.score(tmp_path / "plain.png", mpp=0.5, stride=STRIDE, progress=False)
    assert np.isfinite(found.scores).any()


def test_a_damaged_bundle_is_refused_when_it_is_loaded(model: Model) -> None:
    (model.bundle / "model.safetensors").unlink()
    (model.bundle / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(qprd.QprdError, match="damaged"):
        qprd.load_model(model.bundle)


def test_progress_is_shown_unless_it_is_turned_off(
    model: Model, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.score(slide, stride=STRIDE, progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    model.score(slide, stride=STRIDE)
    assert THIRD in capsys.readouterr().err


def test_a_project_is_written_and_put_back(trained_project: Path, model: Model) -> None:
    with qprd.open_project(trained_project, backend="exchange") as project:
        qprd.predict(project, model.bundle, stride=STRIDE, progress=False)
        assert len(qprd.write_back(project, images=THIRD, progress=False).written) == 1
        assert qprd.evaluate(project, model, split="all", progress=False).patch.auroc is not None
        assert set(qprd.remove(project, progress=False).removed) == {THIRD}
        assert len(qprd.undo(project, everything=True, progress=False).commands) == 2
        assert qprd.doctor(project).failed == 0
    assert qprd.doctor(trained_project.parent, backend="exchange").failed == 0
