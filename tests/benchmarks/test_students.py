"""What is measured beside the recipe: students with tumor patches, and normal patches alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.interface import Labels, MethodOptions
from methods.students import (
    SHARES,
    STUDENTS,
    WhitenedHead,
    hinge_loss,
    is_proven,
    normal_only_scores,
    student_scores,
)
from qprd.evaluation.metrics import auroc
from tests.benchmarks.test_methods import TEST, TRAIN, VAL

OPTIONS = MethodOptions(epochs=2, batch_size=8, lr=3e-3, memory_vectors=2000)
IMAGES = TRAIN[0], VAL[0], TEST[0]


def test_whitened_channels_are_uncorrelated_and_of_one_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(6, 3, 8, 8, generator=generator)
    maps[:, 1] = 5 * (maps[:, 0] + 0.1 * maps[:, 1]) + 2
    head = WhitenedHead([3])
    head.fit_standardization([[maps[:4]], [maps[4:]]])
    (found,) = head.standardize([maps])
    variance = torch.cov(found.transpose(0, 1).flatten(1))
    assert variance[0, 1].abs() < 0.6 * torch.corrcoef(maps.transpose(0, 1).flatten(1))[0, 1]
    uncorrelated = torch.randn(6, 2, 16, 16, generator=generator)
    head = WhitenedHead([2])
    head.fit_standardization([[uncorrelated]])
    (found,) = head.standardize([uncorrelated])
    torch.testing.assert_close(
        torch.cov(found.transpose(0, 1).flatten(1)), torch.eye(2), rtol=0, atol=0.02
    )


def test_the_hinge_forgets_tumor_that_the_student_does_not_resemble() -> None:
    f = torch.ones(1, 2, 3, 3)
    normal, tumor = torch.tensor([1.0]), torch.tensor([0.0])
    assert hinge_loss([f], [-f], tumor) == 0
    assert hinge_loss([f], [f], tumor) > hinge_loss([f], [-f], normal) > 0
    assert hinge_loss([f], [f], normal) == pytest.approx(0, abs=1e-6)


def test_a_share_is_proven_by_more_than_its_noise() -> None:
    rng = np.random.default_rng(0)
    y_true: Labels = np.arange(200) >= 100
    weak = y_true + rng.normal(0, 1, 200)
    strong = y_true + rng.normal(0, 0.3, 200)
    assert is_proven(y_true, weak, strong)
    assert not is_proven(y_true, strong, weak)
    assert not is_proven(y_true, weak, weak + rng.normal(0, 1e-3, 200))


def test_every_student_has_a_row_for_each_share() -> None:
    found = student_scores(IMAGES, (TRAIN[1], VAL[1]), OPTIONS, 0)
    assert len(found) == 1 + len(STUDENTS) * (len(SHARES) + 1)
    assert all(np.isfinite(scores.test).all() for scores in found.values())
    # Nothing can rise above an AUROC of 1, so no share is proven.
    assert auroc(VAL[1], found["best"].val) == 1
    proven = [scores for label, scores in found.items() if "proves" in label]
    assert all(np.array_equal(scores.test, found["best"].test) for scores in proven)
    alone = [scores.test for label, scores in found.items() if "alone" in label]
    assert len({scores.tobytes() for scores in alone}) == len(STUDENTS)


def test_normal_patches_alone_tell_tumor_that_is_easily_seen() -> None:
    normal = TRAIN[0][~TRAIN[1]]
    found = normal_only_scores((normal, VAL[0], TEST[0]), OPTIONS, 0)
    assert len(found) == 4
    for label, scores in found.items():
        area = auroc(TEST[1], scores.test)
        assert area is not None
        assert area > 0.8, label
