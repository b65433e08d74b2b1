from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qprd.evaluation.calibration import Platt
from qprd.export.scorer import ProbabilityAndScore, Score, TwoLogits
from qprd.model.network import Network
from qprd.settings import ModelKind, PatchScore
from tests.helpers.small_models import PATCH_PX, random_model, scores_of


@pytest.mark.parametrize("kind", ["discriminant", "frd", "standardized_frd"])
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_the_network_scores_patches_as_qprd_does(
    kind: ModelKind, reduction: PatchScore, images: NDArray[np.uint8]
) -> None:
    model = random_model(kind)
    with torch.no_grad():
        found = Score(model, PATCH_PX, reduction)(torch.from_numpy(images) / 255)
    expected = scores_of(model, images, reduction)
    assert np.ptp(expected) > 0.01
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_both_outputs_tell_the_same_probability(plain: Network, images: NDArray[np.uint8]) -> None:
    score, calibration = Score(plain, PATCH_PX, "mean"), Platt(3.0, -4.0)
    x = torch.from_numpy(images) / 255
    probability, raw = ProbabilityAndScore(score, calibration)(x)
    softmax = TwoLogits(score, calibration)(x).softmax(1)
    assert torch.allclose(softmax[:, 1], probability, rtol=0, atol=1e-6)
    assert np.allclose(probability, calibration.probability(raw), rtol=0, atol=1e-6)
