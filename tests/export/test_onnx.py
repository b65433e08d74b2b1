from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.evaluation.calibration import Isotonic
from qprd.export.onnx import INPUT, onnx_model, require_onnx, require_same_results
from qprd.export.scorer import ProbabilityAndScore, Score
from qprd.model.network import Network
from tests.helpers.small_models import PATCH_PX, bundle_info, curve_through, scores_of


@pytest.fixture
def _onnx() -> None:
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module, reason=f"the extra 'onnx' is not installed: no {module}")


@pytest.mark.slow
@pytest.mark.usefixtures("_onnx")
def test_onnxruntime_gives_qprds_probabilities_and_scores(
    discriminant: Network, images: NDArray[np.uint8]
) -> None:
    import onnxruntime

    calibration = curve_through(discriminant, images, Isotonic)
    network = ProbabilityAndScore(Score(discriminant, PATCH_PX, "max"), calibration)
    written = onnx_model(network, bundle_info(discriminant, calibration))
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    for chosen in (images[:1], images):
        probability, score = session.run(None, {INPUT: chosen.astype(np.float32) / 255})
        assert np.allclose(score, scores_of(discriminant, chosen, "max"), rtol=1e-4, atol=1e-5)
        expected = calibration.probability(score)
        assert np.allclose(probability, expected, rtol=0, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map == {
        "qprd.bundle": "colon 1",
        "qprd.patch_px": "64",
        "qprd.mpp": "0.5",
        "qprd.threshold": "1.25",
        "qprd.classes": '{"tumor": ["Tumor: sub", "Tumor"], "normal": ["Stroma"]}',
        "qprd.version": bundle_info(discriminant, None).versions["qprd"],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("_onnx")
def test_a_file_without_calibration_has_scores_alone(
    plain: Network, discriminant: Network, images: NDArray[np.uint8]
) -> None:
    import onnxruntime

    written = onnx_model(Score(plain, PATCH_PX, "mean"), bundle_info(plain, None))
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["score"]
    (score,) = session.run(None, {INPUT: images.astype(np.float32) / 255})
    assert np.allclose(score, scores_of(plain, images), rtol=1e-4, atol=1e-5)
    with pytest.raises(QprdError, match="other results"):
        require_same_results(written, Score(discriminant, PATCH_PX, "mean"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", sys)
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    with pytest.raises(QprdError, match="onnxscript") as raised:
        require_onnx()
    assert raised.value.fix is not None
    assert "qprd[onnx]" in raised.value.fix
