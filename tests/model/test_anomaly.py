from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from qprd.model.anomaly import anomaly_map, differences, patch_score, smooth
from qprd.model.loss import map_similarity


def constant_maps(
    cosines: tuple[float, float, float],
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    teacher, student = [], []
    for index, cosine in enumerate(cosines):
        edge = 8 // 2**index
        teacher.append(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, edge, edge))
        other = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
        student.append(other.view(1, 2, 1, 1).expand(1, 2, edge, edge))
    return teacher, student


def test_map_is_the_hand_computed_sum_of_cosine_distances() -> None:
    result = anomaly_map(*constant_maps((0.5, -0.25, 1.0)), size=(32, 32))
    assert result.shape == (1, 32, 32)
    torch.testing.assert_close(result, torch.full((1, 32, 32), 0.5 + 1.25))


def test_identical_maps_score_zero_and_opposite_ones_six() -> None:
    maps = [torch.rand(2, 3, edge, edge) + 0.1 for edge in (8, 4, 2)]
    torch.testing.assert_close(anomaly_map(maps, maps, (16, 16)), torch.zeros(2, 16, 16), atol=1e-5, rtol=0)  # noqa: E501  # fmt: skip
    opposite = anomaly_map(maps, [-m for m in maps], (16, 16))
    torch.testing.assert_close(opposite, torch.full((2, 16, 16), 6.0))


@pytest.mark.parametrize("rows", [1, 16, 33])
def test_differences_are_those_of_the_loss(rows: int) -> None:
    random = torch.Generator().manual_seed(rows)
    a, b = (torch.randn(2, 5, rows, 7, generator=random) for _ in range(2))
    a[0, :, 0, 0] = 0
    (found,) = differences([a], [b.bfloat16()])
    expected = 1 - map_similarity(a, b.bfloat16(), "location")
    torch.testing.assert_close(found, expected)
    assert found[0, 0, 0] == 1


def test_corners_of_a_scale_stay_at_the_corners_of_the_map() -> None:
    # Aligned corners: a 2x2 distance map interpolates linearly from corner pixel to corner pixel.
    teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    student = teacher.clone()
    student[0, :, 0, 1] = torch.tensor([0.0, 1.0])
    result = anomaly_map([teacher], [student], (5, 5))[0]
    ramp = torch.linspace(0, 1, 5)
    torch.testing.assert_close(result, ramp.flip(0).view(5, 1) * ramp.view(1, 5))


maps = hnp.arrays(
    np.float32, (2, 3, 2, 2), elements=st.floats(-1e6, 1e6, width=32, allow_nan=False)
)


@settings(max_examples=100)
@given(teacher=maps, student=maps, sigma=st.sampled_from([0.0, 0.7, 4.0]))
def test_map_stays_within_zero_and_six_before_and_after_smoothing(
    teacher: NDArray[np.float32], student: NDArray[np.float32], sigma: float
) -> None:
    a, b = torch.from_numpy(teacher), torch.from_numpy(student)
    result = anomaly_map([a] * 3, [b] * 3, (8, 8))
    for each in (result, smooth(result, sigma)):
        assert each.isfinite().all()
        assert each.min() >= 0
        assert each.max() <= 6 + 1e-5


@pytest.mark.parametrize("shape", [(64, 64), (40, 17), (8, 5), (1, 3), (1, 1)])
@pytest.mark.parametrize("sigma", [0.5, 2.3, 4.0])
def test_smoothing_equals_scipy_with_its_defaults(shape: tuple[int, int], sigma: float) -> None:
    image = np.random.default_rng(0).random((2, *shape))
    expected = np.stack([ndimage.gaussian_filter(each, sigma) for each in image])
    np.testing.assert_allclose(smooth(torch.from_numpy(image), sigma).numpy(), expected, rtol=1e-10)
    single = smooth(torch.from_numpy(image).float(), sigma)
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4)


def test_smoothing_takes_a_single_map_and_leaves_its_input_alone() -> None:
    image = torch.rand(16, 16)
    before = image.clone()
    assert smooth(image).shape == (16, 16)
    assert torch.equal(image, before)
    assert torch.equal(smooth(image, 0), image)


def test_patch_score_is_mean_or_maximum_of_each_patch() -> None:
    batch = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert patch_score(batch).tolist() == [2.0, 1.0]
    assert patch_score(batch, "max").tolist() == [5.0, 1.0]


def test_half_precision_maps_are_scored_in_float32() -> None:
    half = [torch.rand(1, 3, 4, 4).to(torch.bfloat16) for _ in range(3)]
    assert anomaly_map(half, half, (8, 8)).dtype == torch.float32
