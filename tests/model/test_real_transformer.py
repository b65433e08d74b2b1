"""A real ViT-S/14 of DINOv2, if its weights are there: its maps and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from qprd.model.teacher import Teacher, build_teacher
from tests.helpers.small_models import random_model, scores_of

NAME = "timm:vit_small_patch14_dinov2"


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    path = shared_data / "weights" / "vit_small_patch14_dinov2.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    return path


@pytest.fixture(scope="module")
def teacher(weights: Path) -> Teacher:
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    return build_teacher(NAME, weights=weights)


@pytest.fixture(scope="module")
def reference(weights: Path) -> Any:
    """The same network as timm's own users load it."""
    timm = pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
    model.load_state_dict({n: t.float() for n, t in load_file(weights).items()}, strict=True)
    return model.eval()


def patches(shared_data: Path, edge: int, count: int = 2) -> Tensor:
    from skimage import io

    files = sorted((shared_data / "patches" / "pcam" / "images").iterdir())[:count]
    images = torch.stack([torch.from_numpy(io.imread(file)[..., :3]) for file in files])
    return functional.interpolate(images.permute(0, 3, 1, 2).float(), (edge, edge)).byte()


@pytest.mark.parametrize(("edge", "enlarged"), [(128, 140), (224, 224)])
def test_maps_of_patches_are_those_of_timm(
    shared_data: Path, teacher: Teacher, reference: Any, edge: int, enlarged: int
) -> None:
    images = patches(shared_data, edge)
    x = (images / 255 - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor(
        (0.229, 0.224, 0.225)
    ).view(3, 1, 1)
    x = functional.interpolate(x, (enlarged, enlarged), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = reference.get_intermediate_layers(
            x, [layer - 1 for layer in teacher.layers], reshape=True
        )
    found = teacher(images)
    assert teacher.channels == (384,) * 4
    assert (teacher.sees_all, teacher.multiple_px) == (True, 1)
    for f, wanted in zip(found, expected, strict=True):
        assert f.shape == (2, 384, enlarged // 14, enlarged // 14)
        torch.testing.assert_close(f, wanted, rtol=1e-4, atol=1e-4)


def test_a_score_map_has_no_seams_as_each_patch_has_its_score_whatever_is_scored_with_it(
    shared_data: Path, weights: Path
) -> None:
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    model = random_model("discriminant", NAME, weights)
    images = patches(shared_data, 128, count=6).numpy()
    together = scores_of(model, images)
    alone = np.concatenate([scores_of(model, images[n : n + 1]) for n in range(len(images))])
    assert np.ptp(together) > 1e-3
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
