from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qprd.device import make_fabric
from qprd.evaluation.metrics import auroc
from qprd.given_settings import train_config
from qprd.model.frd import FRD, FusedFRD, build_frd
from qprd.model.teacher import Teacher, build_teacher
from qprd.progress import SilentProgress
from qprd.sampling.dataset import PatchDataset
from qprd.sampling.table import Patch, PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.settings import Recipe, TrainConfig
from qprd.training.loop import TrainingOutcome, ValidationPatches
from qprd.training.recipes import SHARES, choose_share, train_model

EDGE = 32
FABRIC = make_fabric("cpu", "auto")


def patches(normal: int, tumor: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Noise; that of tumor is coarse."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(60, 200, (normal, 3, EDGE, EDGE))
    coarse = rng.integers(60, 200, (tumor, 3, EDGE // 4, EDGE // 4)).repeat(4, 2).repeat(4, 3)
    images = np.concatenate([fine, coarse]).astype(np.uint8)
    return images, np.arange(normal + tumor) >= normal


def trained(
    recipe: Recipe,
    *,
    tumor: int = 6,
    val: ValidationPatches | None = None,
    **settings: object,
) -> tuple[FRD, TrainingOutcome, TrainConfig]:
    config = train_config(
        {
            "recipe": recipe,
            "teacher": "efficientnet_lite0",
            "patch_px": EDGE,
            "epochs": 2,
            "batch_size": 8,
            "device": "cpu",
            **settings,
        }
    )
    images, labels = patches(18, tumor, 0)
    rows = tuple(
        Patch("slide", "slide", 0, 0, float(EDGE), 0.5, "tumor" if y else "normal", "train")
        for y in labels
    )
    dataset = PatchDataset(PatchTable(rows), images, patch_px=EDGE, augment=config.augment)
    teacher = build_teacher("efficientnet_lite0", pretrained=False)
    model = build_frd(teacher, config.seed, recipe)
    outcome = train_model(
        model,
        dataset,
        images,
        labels,
        val=val,
        config=config,
        fabric=FABRIC,
        progress=SilentProgress(),
    )
    return model, outcome, config


def state_of(model: FRD) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.trainable_state().items()}


def test_the_same_seed_gives_the_same_fused_model() -> None:
    first, second = (state_of(trained("best")[0]) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("recipe", ["best", "paper"])
def test_the_teacher_of_a_training_is_the_faster_one(recipe: Recipe) -> None:
    model = trained(recipe, epochs=1)[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.teacher.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.student.modules())


@pytest.mark.parametrize("recipe", ["best", "paper"])
def test_kept_maps_of_the_teacher_change_nothing_but_how_often_it_is_run(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, images: torch.Tensor) -> list[torch.Tensor]:
        views.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Teacher, "forward", counted)
    kept = state_of(trained(recipe, epochs=3)[0])
    with_cache = sum(views)
    views.clear()
    anew = state_of(trained(recipe, epochs=3, teacher_cache=0)[0])
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, anew[name], rtol=1e-3, atol=1e-4)
    # 24 patches, in eight symmetries if there is augmentation; two probes to fold batch norms.
    assert with_cache - 2 <= (24 * 8 if recipe == "best" else 24)
    assert sum(views) >= 3 * 24


def test_the_fused_model_tells_unseen_patches_apart_and_scores_them_around_0_and_1() -> None:
    model, _, _ = trained("best")
    images, labels = patches(12, 12, 1)
    scores = score_patches(model, images, fabric=FABRIC, batch_size=8)
    assert auroc(labels, scores) == 1
    assert np.median(scores[~labels]) < 0.5 < np.median(scores[labels])


def test_training_scores_average_0_for_normal_and_1_for_tumor_patches() -> None:
    model, _, _ = trained("best")
    images, labels = patches(18, 6, 0)
    scores = score_patches(model, images, fabric=FABRIC, batch_size=8)
    assert scores[~labels].mean() == pytest.approx(0, abs=0.02)
    assert scores[labels].mean() == pytest.approx(1, abs=0.02)


def test_the_outcome_has_the_figures_of_the_finished_model() -> None:
    val = ValidationPatches(*patches(8, 8, 2))
    model, outcome, config = trained("best", val=val)
    again = score_patches(model, val.images, fabric=FABRIC, batch_size=config.batch_size)
    assert outcome.val_scores is not None
    assert np.array_equal(outcome.val_scores, again)
    assert outcome.best.epoch == config.epochs
    assert outcome.best.val_auroc == auroc(val.tumor, again)


def test_validation_patches_choose_nothing_but_the_share() -> None:
    images, labels = patches(8, 8, 2)
    free, checked, scrambled = (
        state_of(trained("best", val=val)[0])
        for val in (None, ValidationPatches(images, labels), ValidationPatches(images, ~labels))
    )
    chosen = {"head.difference", "head.bias", "head.linear_1", "head.linear_2", "head.linear_3"}
    for name in free.keys() - chosen:
        assert torch.equal(free[name], checked[name]), name
        assert torch.equal(free[name], scrambled[name]), name


def test_without_tumor_patches_the_score_is_the_plain_difference() -> None:
    model, outcome, _ = trained("best", tumor=0, val=ValidationPatches(*patches(4, 4, 2)))
    assert isinstance(model, FusedFRD)
    state = model.trainable_state()
    assert all(float(state[f"head.linear_{scale}"].abs().sum()) == 0 for scale in (1, 2, 3))
    assert torch.equal(state["head.difference"], torch.ones(3))
    assert outcome.val_scores is not None
    assert ((outcome.val_scores >= 0) & (outcome.val_scores <= 6)).all()


def test_the_papers_recipe_has_neither_head_nor_annealing() -> None:
    model, outcome, _ = trained("paper", val=ValidationPatches(*patches(8, 8, 2)), lr=1e-3)
    assert not isinstance(model, FusedFRD)
    assert {name.split(".")[0] for name in model.trainable_state()} == {"bottleneck", "student"}
    rows = [row for row in outcome.history if row.val_accuracy is not None]
    assert outcome.best.val_accuracy == max(row.val_accuracy or 0 for row in rows)


@pytest.mark.parametrize("best", SHARES)
def test_the_share_with_the_best_validation_auroc_is_taken(best: float) -> None:
    tumor = np.array([True, True, False, False])
    right, wrong = np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 0.0, 1.0, 2.0])
    assert choose_share(tumor, lambda share: right if share == best else wrong) == best


def test_among_equal_shares_the_most_even_one_is_taken() -> None:
    tumor = np.array([True, False])
    assert choose_share(tumor, lambda _: np.array([1.0, 0.0])) == 0.5
