"""A small transformer as a teacher, from training to prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qprd.bundle.reading import load_bundle, read_bundle_info
from qprd.errors import ExitCode, QprdError
from qprd.files.layout import ProjectLayout
from qprd.results.arrays import load_score_map
from qprd.results.folder import load_slide_result
from tests.helpers.drawn_project import NAMES, predict, train

TEACHER = "timm:test_vit"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    timm = pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return str(path)


@pytest.mark.parametrize("tumor", [8, 0])
def test_slides_are_scored_patch_by_patch_with_the_layers_of_the_training(
    project: Path, weights: str, tumor: int
) -> None:
    summary = train(project, teacher=TEACHER, teacher_layers=(1, 4), weights=weights, tumor=tumor)
    info = read_bundle_info(summary.bundle)
    assert info.network.teacher.layers == (1, 4)
    assert info.scoring.by == "patches"
    assert any("patch by patch" in note for note in summary.notes)
    model, _ = load_bundle(summary.bundle, weights=Path(weights))
    assert model.teacher.layers == (1, 4)
    predict(project, images=(NAMES[2],), weights=weights)
    layout = ProjectLayout(project)
    assert load_slide_result(layout.result("3")).scoring == "patches"
    assert np.isfinite(load_score_map(layout.result("3")).scores).any()


def test_fields_are_refused_before_anything_is_sampled(project: Path, weights: str) -> None:
    with pytest.raises(QprdError, match="cannot be scored from fields") as caught:
        train(project, teacher=TEACHER, weights=weights, scoring="fields")
    assert caught.value.exit_code == ExitCode.USAGE


def test_other_weights_than_those_of_the_training_are_refused(
    project: Path, weights: str, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    bundle = train(project, teacher=TEACHER, weights=weights).bundle
    torch.manual_seed(4)
    other = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), other)
    with pytest.raises(QprdError, match="other weights of the teacher"):
        load_bundle(bundle, weights=other)


def test_paper_distills_all_maps_of_a_transformer(project: Path, weights: str) -> None:
    summary = train(
        project, teacher=TEACHER, weights=weights, recipe="paper", epochs=1, similarity="location"
    )
    model, info = load_bundle(summary.bundle, weights=Path(weights))
    assert info.network.model == "frd"
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert [f.shape for f in model.location_scores(images)] == [(1, 4, 4)] * 4
