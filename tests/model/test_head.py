from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from qprd.model.anomaly import upsampled
from qprd.model.head import PENALTY_C, Fusion, FusionHead, fit_fusion, fit_linear

CHANNELS = (3, 4, 5)
EDGES = (16, 8, 4)


def random_maps(seed: int, n: int = 6, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn((n, channels, edge, edge), generator=generator) + channels
        for channels, edge in zip(CHANNELS, EDGES, strict=True)
    ]


def labeled_features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tumor = np.arange(60) < 12
    features = rng.normal(size=(60, sum(CHANNELS))) * 3 + 7
    features[tumor, 0] += 6
    return features, tumor


def test_standardized_maps_have_mean_0_and_deviation_1_over_all_batches() -> None:
    batches = [random_maps(seed, n=3, scale=5) for seed in range(4)]
    head = FusionHead(CHANNELS)
    head.fit_standardization(batches)
    for scale in range(3):
        together = torch.cat([head.standardize(maps)[scale] for maps in batches])
        assert torch.allclose(together.mean((0, 2, 3)), torch.zeros(CHANNELS[scale]), atol=1e-4)
        deviation = together.std((0, 2, 3), unbiased=False)
        assert torch.allclose(deviation, torch.ones(CHANNELS[scale]), atol=1e-4)


def test_a_constant_channel_is_not_blown_up() -> None:
    maps = random_maps(0)
    maps[0][:, 1] = 2.5
    head = FusionHead(CHANNELS)
    head.fit_standardization([maps])
    assert torch.isfinite(head.standardize(maps)[0]).all()
    assert head.standardize(maps)[0][:, 1].abs().max() < 1e-3


def test_there_must_be_something_to_standardize_over() -> None:
    with pytest.raises(ValueError, match="no maps"):
        FusionHead(CHANNELS).fit_standardization([])


def test_an_unfused_head_is_the_plain_difference() -> None:
    teacher, student = random_maps(1), random_maps(2)
    found = upsampled(FusionHead(CHANNELS).location_scores(teacher, student), (64, 64))
    distances = [
        (1 - functional.cosine_similarity(f, g, dim=1)).mean((1, 2))
        for f, g in zip(teacher, student, strict=True)
    ]
    assert found.shape == (6, 64, 64)
    assert torch.allclose(found.mean((1, 2)), torch.stack(distances).sum(0), atol=1e-5)


@given(seed=st.integers(0, 99), share=st.floats(0, 1))
@settings(max_examples=20)
def test_the_mean_of_a_map_is_the_fused_score_of_the_patch(seed: int, share: float) -> None:
    features, tumor = labeled_features(seed)
    classifier = fit_linear([features], tumor)
    rng = np.random.default_rng(seed)
    differences = rng.uniform(0, 6, len(tumor)) + tumor
    fusion = fit_fusion(classifier(features), differences, tumor, share)
    head = FusionHead(CHANNELS)
    head.fuse(classifier, fusion)
    teacher, student = random_maps(seed), random_maps(seed + 100)
    pooled = torch.cat([f.mean((2, 3)) for f in teacher], 1).double().numpy()
    distance = sum(
        (1 - functional.cosine_similarity(f, g, dim=1)).mean((1, 2))
        for f, g in zip(teacher, student, strict=True)
    )
    scores = head.location_scores(teacher, student)
    found = torch.stack([scale.mean((1, 2)) for scale in scores]).sum(0).numpy()
    meant = fusion(classifier(pooled), distance.double().numpy())  # type: ignore[union-attr]
    assert np.allclose(found, meant, rtol=1e-3, atol=1e-3 * (1 + np.abs(meant).max()))


def test_the_classifier_is_scikit_learns_on_standardized_features() -> None:
    features, tumor = labeled_features()
    normal = features[~tumor]
    standardized = (features - normal.mean(0)) / normal.std(0)
    reference = LogisticRegression(C=PENALTY_C, class_weight="balanced", max_iter=5000)
    reference.fit(standardized, tumor)
    found = fit_linear([features], tumor)(features)
    assert np.allclose(found, reference.decision_function(standardized), atol=1e-6)


def test_the_classifier_counts_a_patch_once_however_many_views_there_are() -> None:
    features, tumor = labeled_features()
    one, eight = fit_linear([features], tumor), fit_linear([features] * 8, tumor)
    assert np.allclose(one(features), eight(features), atol=1e-4)


def test_the_classifier_does_not_depend_on_the_unit_of_a_feature() -> None:
    features, tumor = labeled_features()
    scale = np.linspace(1, 900, features.shape[1])
    plain, scaled = fit_linear([features], tumor), fit_linear([features * scale], tumor)
    assert np.allclose(plain(features), scaled(features * scale), atol=1e-5)


@given(share=st.floats(0, 1), seed=st.integers(0, 50))
def test_normal_patches_score_0_and_tumor_1_on_average(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tumor = np.arange(30) < 5
    decisions, differences = rng.normal(size=(2, 30)) + np.array([[3.0], [0.5]]) * tumor
    differences += 2 * tumor
    scores = fit_fusion(decisions, differences, tumor, share)(decisions, differences)
    assert scores[~tumor].mean() == pytest.approx(0, abs=1e-9)
    assert scores[tumor].mean() == pytest.approx(1, abs=1e-9)


def test_a_part_that_ranks_the_classes_the_wrong_way_round_is_left_out() -> None:
    tumor = np.array([True, True, False, False])
    good, bad = np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, 3.0])
    assert fit_fusion(good, bad, tumor, 0.5).student == 0
    assert fit_fusion(bad, good, tumor, 0.5).linear == 0
    assert fit_fusion(good, bad, tumor, 0.5) == fit_fusion(good, good, tumor, 0.0)
    assert fit_fusion(bad, bad, tumor, 0.5) == Fusion(0.0, 0.0, 0.0)
