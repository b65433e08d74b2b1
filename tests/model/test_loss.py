from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.model.loss import (
    EPS,
    SimilarityLoss,
    build_loss,
    focal_similarity_loss,
    focal_terms,
    labels_at_scale,
    map_similarity,
    plain_similarity_loss,
    resolve_alpha,
)
from qprd.settings import Similarity, TrainConfig

Maps = list[torch.Tensor]


def random_maps(seed: int, n: int = 4, dtype: torch.dtype = torch.float64) -> Maps:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, 24, 8, 8), (n, 32, 4, 4), (n, 48, 2, 2)]
    return [torch.rand(shape, generator=generator, dtype=dtype) for shape in shapes]


def maps_at_angle(cosine: float) -> tuple[Maps, Maps]:
    """One patch whose three 1x1 maps of two channels all have this cosine."""
    teacher = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1)
    student = torch.tensor([cosine, math.sqrt(1 - cosine**2)], dtype=torch.float64)
    return [teacher] * 3, [student.view(1, 2, 1, 1)] * 3


def reference_loss(
    teacher: Maps,
    student: Maps,
    y: NDArray[np.float64],
    *,
    alpha: float,
    gamma: float,
    mode: Similarity,
) -> float:
    """The equations of docs/method.md, written out in NumPy for S_t within (EPS, 1]."""
    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        a, b = t.numpy().astype(np.float64), s.numpy().astype(np.float64)
        if mode == "image":
            a, b = a.reshape(len(a), -1, 1), b.reshape(len(b), -1, 1)
        else:
            a, b = a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        similarity = (a * b).sum(axis=1) / norms
        per_patch = []
        for patch, label in zip(similarity, y, strict=True):
            s_t = patch if label == 1 else 1 - patch
            alpha_t = alpha if label == 1 else 1 - alpha
            assert s_t.min() > EPS
            per_patch.append(np.mean(-alpha_t * (1 - s_t) ** gamma * np.log(s_t)))
        total += float(np.mean(per_patch))
    return total


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (1.0, 3 * 0.1 * 0.25 * math.log(2)),
        (0.0, 3 * 0.9 * 0.25 * math.log(2)),
    ],
)
def test_loss_at_cosine_one_half_is_the_hand_computed_value(label: float, expected: float) -> None:
    # S = 1/2, so S_t = 1/2 for both labels: alpha_t * (1/2)^2 * ln 2 at each of three scales.
    teacher, student = maps_at_angle(0.5)
    loss = focal_similarity_loss(teacher, student, torch.tensor([label]), alpha=0.1, gamma=2)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_loss_of_mixed_batch_is_the_hand_computed_mean() -> None:
    # Normal at S = 0.8: .1 * .2^2 * -ln .8; tumor at S = 0.6, S_t = 0.4: .9 * .6^2 * -ln .4.
    (t1, s1), (t2, s2) = maps_at_angle(0.8), maps_at_angle(0.6)
    teacher = [torch.cat(pair) for pair in zip(t1, t2, strict=True)]
    student = [torch.cat(pair) for pair in zip(s1, s2, strict=True)]
    loss = focal_similarity_loss(teacher, student, torch.tensor([1, 0]), alpha=0.1, gamma=2)
    normal, tumor = 0.1 * 0.04 * -math.log(0.8), 0.9 * 0.36 * -math.log(0.4)
    assert loss.item() == pytest.approx(3 * (normal + tumor) / 2, rel=1e-12)


@pytest.mark.parametrize("mode", ["image", "location"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("labels", [[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_loss_equals_the_equations_in_float64(
    mode: Similarity, gamma: float, labels: list[int]
) -> None:
    teacher, student = random_maps(1), random_maps(2)
    expected = reference_loss(teacher, student, np.array(labels), alpha=0.3, gamma=gamma, mode=mode)
    loss = focal_similarity_loss(
        teacher, student, torch.tensor(labels), alpha=0.3, gamma=gamma, similarity=mode
    )
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("mode", ["image", "location"])
def test_float32_and_bfloat16_maps_give_the_float64_loss_closely(mode: Similarity) -> None:
    teacher, student = random_maps(1), random_maps(2)
    y = torch.tensor([1, 0, 1, 1])
    exact = focal_similarity_loss(teacher, student, y, alpha=0.1, gamma=2, similarity=mode)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        loss = focal_similarity_loss(
            [m.to(dtype) for m in teacher],
            [m.to(dtype) for m in student],
            y,
            alpha=0.1,
            gamma=2,
            similarity=mode,
        )
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=tolerance)


def test_similarity_per_image_and_per_location_agree_on_single_pixel_maps() -> None:
    teacher = [m[..., :1, :1] for m in random_maps(1)]
    student = [m[..., :1, :1] for m in random_maps(2)]
    y = torch.tensor([1, 0, 0, 1])
    losses = [
        focal_similarity_loss(teacher, student, y, alpha=0.1, gamma=2, similarity=mode).item()
        for mode in ("image", "location")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_similarity_per_image_and_per_location_differ_on_larger_maps() -> None:
    teacher, student, y = random_maps(1), random_maps(2), torch.tensor([1, 0, 0, 1])
    image, location = (
        focal_similarity_loss(teacher, student, y, alpha=0.1, gamma=2, similarity=mode).item()
        for mode in ("image", "location")
    )
    assert abs(image - location) > 1e-3


def test_mask_that_is_constant_per_patch_equals_the_patch_label() -> None:
    teacher, student, y = random_maps(1), random_maps(2), torch.tensor([1, 0, 0, 1])
    mask = y.float().view(-1, 1, 1).expand(-1, 32, 32)
    by_patch = focal_similarity_loss(teacher, student, y, alpha=0.1, gamma=2, similarity="location")
    by_mask = focal_similarity_loss(
        teacher, student, mask, alpha=0.1, gamma=2, similarity="location", labels="mask"
    )
    assert by_mask.item() == pytest.approx(by_patch.item(), rel=1e-12)


def test_ignored_locations_and_patches_leave_no_trace() -> None:
    teacher, student = random_maps(1), [m.requires_grad_() for m in random_maps(2)]
    mask = torch.full((4, 32, 32), torch.nan)
    mask[0, :, :16] = 1
    mask[1, :16, :] = 0
    mask[2] = -1
    focal_similarity_loss(
        teacher, student, mask, alpha=0.1, gamma=2, similarity="location", labels="mask"
    ).backward()
    for m in student:
        assert m.grad is not None
        half = m.shape[-1] // 2
        assert m.grad[0, ..., :half].abs().sum(0).gt(0).all()
        assert m.grad[1, :, :half].abs().sum(0).gt(0).all()
        assert not m.grad[0, ..., half:].any()
        assert not m.grad[1, :, half:].any()
        assert not m.grad[2:].any()


@pytest.mark.parametrize("ignored", [-1.0, math.nan])
def test_patch_with_ignored_label_does_not_count_in_the_mean(ignored: float) -> None:
    teacher, student = random_maps(1), random_maps(2)
    some = focal_similarity_loss(
        teacher, student, torch.tensor([1.0, ignored, 0.0, ignored]), alpha=0.1, gamma=2
    )
    alone = focal_similarity_loss(
        [m[::2] for m in teacher], [m[::2] for m in student], torch.tensor([1, 0]), alpha=0.1,
        gamma=2,
    )  # fmt: skip
    assert some.item() == pytest.approx(alone.item(), rel=1e-12)


def test_batch_without_any_label_has_loss_zero_and_gradients_zero() -> None:
    teacher, student = random_maps(1), [m.requires_grad_() for m in random_maps(2)]
    loss = focal_similarity_loss(teacher, student, torch.full((4,), -1.0), alpha=0.1, gamma=2)
    loss.backward()
    assert loss.item() == 0
    assert all(m.grad is not None and not m.grad.any() for m in student)


def test_labels_at_scale_take_the_majority_and_tumor_on_a_tie() -> None:
    mask = torch.full((1, 4, 8), torch.nan)
    mask[0, :, :4] = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 4)
    mask[0, 0, :3] = 0  # the left half: 7 normal, 9 tumor
    mask[0, :, 4:6] = 1  # the right half: 8 of 16 labelled, all normal
    assert labels_at_scale(mask, (1, 2)).tolist() == [[[0.0, 1.0]]]
    mask[0, 0, 4] = -1  # 7 of 16
    assert labels_at_scale(mask, (1, 2))[0, 0, 1].isnan()
    tie = torch.tensor([[[1.0, 0.0]]])
    assert labels_at_scale(tie, (1, 1)).item() == 0


def test_mask_labels_need_similarity_per_location() -> None:
    with pytest.raises(QprdError, match="label per location"):
        plain_similarity_loss(random_maps(1), random_maps(2), labels="mask", similarity="image")


def test_maps_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        map_similarity(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 2, 2), "location")


# --- limits ---------------------------------------------------------------------------------


def slope(s: float, label: int, alpha: float = 0.1, gamma: float = 2.0) -> tuple[float, float]:
    """Loss and its derivative by S."""
    similarity = torch.tensor([s], dtype=torch.float64, requires_grad=True)
    loss = focal_terms(similarity, torch.tensor([label]), alpha=alpha, gamma=gamma).sum()
    loss.backward()
    assert similarity.grad is not None
    return loss.item(), similarity.grad.item()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("s", [-1.0, -0.5, -1e-3, 0.0, 1e-9, EPS / 2, EPS, 0.5])
def test_normal_patch_is_pulled_towards_the_teacher_from_everywhere(s: float, gamma: float) -> None:
    loss, derivative = slope(s, label=1, gamma=gamma)
    assert loss > 0
    assert -10 / EPS < derivative < -1e-3


@pytest.mark.parametrize("s", [1.0, 1 - 1e-12, 1 - EPS / 2, 1 - EPS, 0.5])
def test_tumor_patch_is_pushed_from_the_teacher_where_s_t_reaches_zero(s: float) -> None:
    loss, derivative = slope(s, label=0)
    assert loss > 0
    assert 1e-3 < derivative < 10 / EPS


@pytest.mark.parametrize("s", [0.0, -0.3, -1.0])
def test_tumor_patch_that_differs_enough_costs_nothing_and_rests(s: float) -> None:
    assert slope(s, label=0) == (0.0, 0.0)


def test_loss_and_slope_are_continuous_where_the_tangent_begins() -> None:
    below, above = slope(EPS * (1 - 1e-7), label=1), slope(EPS * (1 + 1e-7), label=1)
    assert below == pytest.approx(above, rel=1e-6)


def test_loss_below_eps_is_the_hand_computed_tangent() -> None:
    # S = 0: .1 * 1^2 * (-ln .01 + 1)
    assert slope(0.0, label=1)[0] == pytest.approx(0.1 * (math.log(100) + 1), rel=1e-12)


def test_perfect_normal_patch_costs_nothing_for_any_gamma() -> None:
    for gamma in (0.0, 0.5, 1.0, 2.0):
        loss, derivative = slope(1.0, label=1, gamma=gamma)
        assert loss == 0
        assert math.isfinite(derivative)


vectors = hnp.arrays(
    np.float32,
    (2, 3, 2, 2),
    elements=st.floats(-1e6, 1e6, width=32, allow_nan=False),
)


@settings(max_examples=150)
@given(
    teacher=vectors,
    student=vectors,
    relation=st.sampled_from(["any", "same", "opposite", "zero student", "zero teacher"]),
    labels=st.tuples(st.sampled_from([0, 1, -1]), st.sampled_from([0, 1, -1])),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    mode=st.sampled_from(["image", "location"]),
)
def test_loss_and_gradients_are_finite_for_any_maps(
    *,
    teacher: NDArray[np.float32],
    student: NDArray[np.float32],
    relation: str,
    labels: tuple[int, int],
    gamma: float,
    mode: Similarity,
) -> None:
    if relation == "same":
        student = teacher.copy()
    elif relation == "opposite":
        student = -teacher
    elif relation == "zero student":
        student = np.zeros_like(student)
    elif relation == "zero teacher":
        teacher = np.zeros_like(teacher)
    x = torch.from_numpy(student).requires_grad_()
    loss = focal_similarity_loss(
        [torch.from_numpy(teacher)], [x], torch.tensor(labels), alpha=0.1, gamma=gamma,
        similarity=mode,
    )  # fmt: skip
    loss.backward()
    assert loss.item() >= 0
    assert math.isfinite(loss.item())
    assert x.grad is not None
    assert x.grad.isfinite().all()


# --- plain reverse distillation -------------------------------------------------------------


def test_plain_loss_is_the_sum_over_scales_of_one_minus_cosine() -> None:
    teacher, student = maps_at_angle(0.5)
    assert plain_similarity_loss(teacher, student).item() == pytest.approx(1.5, rel=1e-12)


def test_plain_loss_leaves_tumor_patches_out() -> None:
    teacher, student = random_maps(1), random_maps(2)
    some = plain_similarity_loss(teacher, student, torch.tensor([1, 0, 1, 0]))
    normal = plain_similarity_loss([m[::2] for m in teacher], [m[::2] for m in student])
    assert some.item() == pytest.approx(normal.item(), rel=1e-12)


@pytest.mark.parametrize("alpha", ["auto", 0.1, 0.0])
def test_without_tumor_patches_the_loss_is_plain_and_learns(alpha: float | Literal["auto"]) -> None:
    loss = build_loss(TrainConfig(alpha=alpha), n_tumor=0, n_normal=100)
    teacher, student = random_maps(1), [m.requires_grad_() for m in random_maps(2)]
    y = torch.ones(4)
    value = loss(teacher, student, y)
    assert value.item() == pytest.approx(plain_similarity_loss(teacher, student).item())
    value.backward()
    assert all(m.grad is not None and m.grad.any() for m in student)


def test_with_tumor_patches_the_loss_is_focal() -> None:
    config = TrainConfig(alpha="auto", gamma=1.5, similarity="location")
    loss = build_loss(config, n_tumor=50, n_normal=150)
    assert loss == SimilarityLoss("focal", 0.25, 1.5, "location", "patch")
    teacher, student, y = random_maps(1), random_maps(2), torch.tensor([1, 0, 1, 1])
    expected = reference_loss(teacher, student, y.numpy(), alpha=0.25, gamma=1.5, mode="location")
    assert loss(teacher, student, y).item() == pytest.approx(expected, rel=1e-10)


def test_alpha_auto_is_the_share_of_tumor() -> None:
    assert resolve_alpha("auto", 500, 5000) == pytest.approx(1 / 11)
    assert resolve_alpha(0.3, 500, 5000) == 0.3
    assert resolve_alpha("auto", 0, 5000) == 1.0


def test_training_without_normal_patches_is_refused() -> None:
    with pytest.raises(QprdError, match="normal patches"):
        resolve_alpha("auto", 10, 0)
