from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms

from qprd.bundle.records import TrainingInfo
from qprd.errors import QprdError
from qprd.evaluation.calibration import Isotonic, Platt
from qprd.export.scorer import Score, TwoLogits
from qprd.export.wsinfer import (
    CONFIG_FILE,
    MODEL_FILE,
    README_FILE,
    class_names,
    model_card,
    traced_network,
    wsinfer_files,
)
from qprd.model.network import Network
from tests.helpers.small_models import PATCH_PX, bundle_info, curve_through, scores_of

KINDS = (Platt, Isotonic)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def exported(
    request: pytest.FixtureRequest, discriminant: Network, images: NDArray[np.uint8]
) -> tuple[Platt | Isotonic, dict[str, bytes]]:
    """A curve, and the files of a bundle with it; made with every warning an error."""
    calibration = curve_through(discriminant, images, request.param)
    network = TwoLogits(Score(discriminant, PATCH_PX, "mean"), calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return calibration, wsinfer_files(network, bundle_info(discriminant, calibration))


def loaded(files: dict[str, bytes]) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(io.BytesIO(files[MODEL_FILE]), map_location="cpu")


def test_wsinfers_steps_give_qprds_probabilities(
    exported: tuple[Platt | Isotonic, dict[str, bytes]],
    discriminant: Network,
    images: NDArray[np.uint8],
) -> None:
    calibration, files = exported
    steps = json.loads(files[CONFIG_FILE])["transform"]
    transform = transforms.Compose(
        [getattr(transforms, step["name"])(**step.get("arguments", {})) for step in steps]
    )
    batch = torch.stack([transform(Image.fromarray(p.transpose(1, 2, 0))) for p in images])
    network = loaded(files)
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(part).softmax(1) for part in (batch[:1], batch[1:])])
    expected = calibration.probability(scores_of(discriminant, images))
    assert np.ptp(expected) > 0.5
    assert np.allclose(found[:, 1], expected, rtol=0, atol=1e-4)


def test_the_configuration_has_what_wsinfers_schema_asks_for(
    exported: tuple[Platt | Isotonic, dict[str, bytes]],
) -> None:
    assert json.loads(exported[1][CONFIG_FILE]) == {
        "spec_version": "1.0",
        "architecture": "resnet18",
        "num_classes": 2,
        "class_names": ["Stroma", "Tumor: sub"],
        "patch_size_pixels": PATCH_PX,
        "spacing_um_px": 0.5,
        "transform": [
            {"name": "Resize", "arguments": {"size": PATCH_PX}},
            {"name": "ToTensor"},
        ],
    }


def test_the_network_is_bound_to_no_device(
    exported: tuple[Platt | Isotonic, dict[str, bytes]],
) -> None:
    network = loaded(exported[1])
    assert "Device = prim::Constant" not in str(network.inlined_graph)
    # Apple's GPUs have no double precision.
    assert "Double(" not in str(network.inlined_graph)
    # wsinfer --speedup asks the first one where it is.
    assert next(network.parameters()).device.type == "cpu"


def test_classes_of_one_name_are_told_apart(plain: Network) -> None:
    info = bundle_info(plain, None)
    assert class_names(info) == ("Stroma", "Tumor: sub")
    assert class_names(replace(info, training=TrainingInfo())) == ("Normal", "Tumor")
    both = {"tumor": ("A",), "normal": ("A",)}
    assert class_names(replace(info, training=TrainingInfo(classes=both))) == ("not A", "A")


def test_the_model_card_names_the_probability_of_the_threshold(plain: Network) -> None:
    info = bundle_info(plain, Platt(2.0, -2.5))
    assert "a probability of 0.500" in model_card(info)
    assert "threshold" not in model_card(
        replace(info, scoring=replace(info.scoring, threshold=None))
    )


def test_the_model_card_is_among_the_files(
    exported: tuple[Platt | Isotonic, dict[str, bytes]],
) -> None:
    assert exported[1][README_FILE].startswith(b"# colon 1\n")


class _CountsPatches(TwoLogits):
    """Its trace holds the number of patches that it was made with."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((images.shape[0], 2), float(len(images)))


def test_a_network_that_does_not_survive_the_translation_is_refused(plain: Network) -> None:
    network = _CountsPatches(Score(plain, PATCH_PX, "mean"), Platt(1.0, 0.0))
    with pytest.raises(QprdError, match="other results"):
        traced_network(network)
