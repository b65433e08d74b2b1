"""A transformer as a teacher, as others run it: its position embeddings are of the patch's size."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qprd.evaluation.calibration import Isotonic
from qprd.export.onnx import INPUT, onnx_model
from qprd.export.scorer import ProbabilityAndScore, Score, TwoLogits
from qprd.export.wsinfer import MODEL_FILE, wsinfer_files
from qprd.model.network import Network
from tests.helpers.small_models import PATCH_PX, bundle_info, curve_through, random_model, scores_of


@pytest.fixture(scope="module", params=["test_vit", "vit_small_patch14_dinov2"])
def transformer(request: pytest.FixtureRequest) -> Network:
    """A discriminant of a ViT that was built for patches of another size: a toy, and DINOv2's."""
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    if request.param == "test_vit":
        return random_model("discriminant", "timm:test_vit")
    shared_data: Path = request.getfixturevalue("shared_data")
    weights = shared_data / "weights" / f"{request.param}.safetensors"
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}")
    return random_model("discriminant", f"timm:{request.param}", weights)


def test_torchscript_gives_qprds_probabilities(
    transformer: Network, images: NDArray[np.uint8]
) -> None:
    calibration = curve_through(transformer, images, Isotonic)
    expected = calibration.probability(scores_of(transformer, images))
    network = TwoLogits(Score(copy.deepcopy(transformer), PATCH_PX, "mean"), calibration)
    written = wsinfer_files(network, bundle_info(transformer, calibration))
    loaded = torch.jit.load(io.BytesIO(written[MODEL_FILE]))
    found = loaded(torch.from_numpy(images).float() / 255).softmax(1)[:, 1]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-5)


@pytest.mark.slow
def test_onnxruntime_gives_qprds_scores(transformer: Network, images: NDArray[np.uint8]) -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason=f"the extra 'onnx' is not installed: no {module}")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    calibration = curve_through(transformer, images, Isotonic)
    score = Score(copy.deepcopy(transformer), PATCH_PX, "mean")
    written = onnx_model(
        ProbabilityAndScore(score, calibration), bundle_info(transformer, calibration)
    )
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    for chosen in (images[:1], images):
        _, found = session.run(None, {INPUT: chosen.astype(np.float32) / 255})
        np.testing.assert_allclose(found, scores_of(transformer, chosen), rtol=1e-4, atol=1e-5)
