"""Every method finds tumor where it is easily seen, and the same seed finds the same."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from methods.classifier import augmented
from methods.frd import ReverseDistillation
from methods.interface import Images, Labels, MethodOptions
from methods.memory import greedy_coreset, nearest_distances
from methods.per_image import PerImageFeatures
from methods.registry import METHODS, RELEVANT_OPTIONS, build_method
from qprd.errors import QprdError
from qprd.evaluation.metrics import auroc
from tests.helpers.patch_folders import draw_patch

OPTIONS = MethodOptions(epochs=3, batch_size=8, lr=3e-3, memory_vectors=2000, augment=False)
#: Batch statistics take longer to follow than reverse distillation needs.
EPOCHS = {"classifier": 8, "ranking": 5}


def _patches(normal: int, tumor: int, seed: int) -> tuple[Images, Labels]:
    rng = np.random.default_rng(seed)
    label = np.arange(normal + tumor) >= normal
    images = np.stack([draw_patch(rng, bool(is_tumor)).transpose(2, 0, 1) for is_tumor in label])
    return images, label


TRAIN, VAL, TEST = _patches(24, 8, 1), _patches(8, 8, 2), _patches(12, 12, 3)


@cache
def _scores(name: str) -> NDArray[np.float64]:
    return _fit_and_score(name, *TRAIN)


def _fit_and_score(
    name: str, images: Images, tumor: Labels, *, epochs: int | None = None
) -> NDArray[np.float64]:
    options = replace(OPTIONS, epochs=epochs or EPOCHS.get(name, OPTIONS.epochs))
    method = build_method(name, "paper", options)
    method.fit(images, tumor, *VAL, seed=0)
    return method.score(TEST[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_beats_chance(name: str) -> None:
    assert _scores(name).shape == (24,)
    area = auroc(TEST[1], _scores(name))
    assert area is not None
    assert area > 0.8


def test_kept_features_give_the_scores_of_the_library() -> None:
    for augment in (True, False):
        options = replace(OPTIONS, augment=augment)
        kept = build_method("frd", "best", options)
        library = ReverseDistillation(options, "best", focal=True)
        for method in (kept, library):
            method.fit(*TRAIN, *VAL, seed=0)
        np.testing.assert_allclose(
            kept.score(TEST[0]), library.score(TEST[0]), rtol=1e-3, atol=1e-3
        )


def test_what_is_done_about_other_stains_changes_the_scores() -> None:
    options = replace(OPTIONS, augment=True)
    found = []
    for changed in ({}, {"stains": "none"}, {"stains": "hed"}, {"standardized": True}):
        method = build_method("frd", "best", replace(options, **changed))
        method.fit(*TRAIN, *VAL, seed=0)
        found.append(method.score(TEST[0]))
        assert auroc(TEST[1], found[-1]) == 1
    assert all(not np.allclose(a, b) for a, b in itertools.combinations(found, 2))


def test_the_best_recipe_beats_chance_with_and_without_tumor_patches() -> None:
    images, tumor = TRAIN
    for used in (np.ones(len(tumor), bool), ~tumor):
        method = build_method("frd", "best", OPTIONS)
        method.fit(images[used], tumor[used], *VAL, seed=0)
        area = auroc(TEST[1], method.score(TEST[0]))
        assert area is not None
        assert area > 0.8


@pytest.mark.parametrize("name", ["memory", "forest", "classifier"])
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    first, second = (_fit_and_score(name, *TRAIN, epochs=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("name", "one_class"), [("memory", "memory"), ("frd", "rd")])
def test_methods_of_one_class_know_no_tumor_patches(name: str, one_class: str) -> None:
    normal = ~TRAIN[1]
    scores = _fit_and_score(name, TRAIN[0][normal], TRAIN[1][normal])
    np.testing.assert_array_equal(scores, _scores(one_class))


def test_a_score_depends_on_the_patch_alone() -> None:
    for name in ("linear", "memory"):
        method = build_method(name, "paper", OPTIONS)
        method.fit(*TRAIN, *VAL, seed=0)
        alone = [float(method.score(TEST[0][i : i + 1])[0]) for i in (0, 20)]
        np.testing.assert_allclose(alone, method.score(TEST[0])[[0, 20]], rtol=1e-4, atol=1e-4)


def test_every_method_says_which_options_it_takes() -> None:
    assert set(RELEVANT_OPTIONS) == set(METHODS)
    for names in RELEVANT_OPTIONS.values():
        assert all(hasattr(OPTIONS, name) for name in names)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(QprdError, match="no network 'vgg'"):
        build_method("classifier", "paper", MethodOptions(network="vgg")).fit(*TRAIN, *VAL, seed=0)
    with pytest.raises(QprdError, match="no method 'magic'"):
        build_method("magic", "paper", OPTIONS)
    with pytest.raises(QprdError, match="coreset"):
        build_method("memory", "paper", MethodOptions(coreset=0))


def test_the_coreset_covers_all_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = 100 * torch.randn(5, 6, generator=generator)
    cluster = torch.arange(100) % 5
    vectors = centers[cluster] + torch.randn(100, 6, generator=generator)
    chosen = greedy_coreset(vectors, 5, seed=3)
    assert sorted(cluster[chosen].tolist()) == [0, 1, 2, 3, 4]
    assert len(set(greedy_coreset(vectors, 40, seed=3).tolist())) == 40


def test_distances_are_to_the_nearest() -> None:
    memory = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    queries = torch.tensor([[3.0, 4.0], [10.0, 1.0]])
    torch.testing.assert_close(nearest_distances(queries, memory), torch.tensor([5.0, 1.0]))


def test_features_are_computed_once_an_image() -> None:
    asked: list[int] = []

    def compute(images: Images) -> np.ndarray:
        asked.append(len(images))
        return images.reshape(len(images), -1)[:, :2].astype(np.float32)

    features = PerImageFeatures(compute)
    images = TEST[0]
    np.testing.assert_array_equal(features(images[:4]), compute(images[:4]))
    np.testing.assert_array_equal(features(images[[3, 5, 0]]), compute(images[[3, 5, 0]]))
    assert asked == [4, 4, 1, 3]


def test_augmented_patches_are_turned_and_their_colors_jittered() -> None:
    images = torch.from_numpy(TEST[0])
    turned = augmented(images, jitter=False)
    for image, other in zip(images, turned, strict=True):
        symmetries = [
            flipped
            for turns in range(4)
            for rotated in [torch.rot90(image, turns, (1, 2))]
            for flipped in (rotated, rotated.flip(2))
        ]
        assert sum(torch.equal(other, symmetry) for symmetry in symmetries) == 1
    assert not torch.equal(turned, images)
    jittered = augmented(images, jitter=True)
    shift = (jittered.float().mean((2, 3)) - images.float().mean((2, 3))).abs()
    assert jittered.dtype == torch.uint8
    assert 2 < shift.mean() < 60
