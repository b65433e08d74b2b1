from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.evaluation.metrics import auroc
from qprd.given_settings import train_config
from qprd.model.assembly import build_network
from qprd.model.discriminant import Discriminant
from qprd.model.frd import FRD, StandardizedFRD
from qprd.model.network import Network
from qprd.model.teacher import Teacher, build_teacher
from qprd.progress import Progress, SilentProgress
from qprd.sampling.dataset import SYMMETRIES, PatchDataset, symmetric
from qprd.sampling.stain import restained
from qprd.sampling.table import Patch, PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.settings import Recipe, TrainConfig
from qprd.training.history import ValidationPatches
from qprd.training.loop import TrainingOutcome
from qprd.training.recipes import model_of, train_model
from tests.helpers.extensions import documented_package

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
    teacher: str = "efficientnet_lite0",
    val: ValidationPatches | None = None,
    folder: Path | None = None,
    finish: bool = False,
    progress: Progress | None = None,
    **settings: object,
) -> tuple[Network, TrainingOutcome, TrainConfig]:
    config = train_config(
        {
            "recipe": recipe,
            "teacher": teacher,
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
    frozen = build_teacher(teacher, pretrained=False)
    model = build_network(model_of(recipe, tumor), frozen, config.seed)
    outcome = train_model(
        model,
        dataset,
        images,
        labels,
        val=val,
        config=config,
        fabric=FABRIC,
        progress=progress or SilentProgress(),
        folder=folder,
        finish=finish,
    )
    return model, outcome, config


def state_of(model: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.trainable_state().items()}


#: A recipe and its number of tumor patches, which decide the model.
CASES = pytest.mark.parametrize(("recipe", "tumor"), [("best", 6), ("best", 0), ("paper", 6)])


def test_the_recipe_and_the_tumor_patches_decide_the_model() -> None:
    assert model_of("best", 1) is Discriminant
    assert model_of("best", 0) is StandardizedFRD
    assert model_of("paper", 1) is model_of("paper", 0) is FRD


@CASES
def test_the_same_seed_gives_the_same_model(recipe: Recipe, tumor: int) -> None:
    first, second = (state_of(trained(recipe, tumor=tumor)[0]) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@CASES
def test_the_teacher_of_a_training_is_the_faster_one(recipe: Recipe, tumor: int) -> None:
    model = trained(recipe, tumor=tumor, epochs=1)[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.teacher.modules())


@pytest.mark.parametrize(("recipe", "tumor"), [("best", 0), ("paper", 6)])
def test_kept_maps_of_the_teacher_change_nothing_but_how_often_it_is_run(
    recipe: Recipe, tumor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, images: torch.Tensor) -> list[torch.Tensor]:
        views.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Teacher, "forward", counted)
    kept = state_of(trained(recipe, tumor=tumor, epochs=3)[0])
    with_cache = sum(views)
    views.clear()
    anew = state_of(trained(recipe, tumor=tumor, epochs=3, teacher_cache=0)[0])
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, anew[name], rtol=1e-3, atol=1e-4)
    # In eight symmetries if there is augmentation; two probes to fold batch norms.
    patches = 18 + tumor
    assert with_cache - 2 <= (patches * SYMMETRIES if recipe == "best" else patches)
    assert sum(views) >= 3 * patches


def test_a_discriminant_sees_each_patch_once_in_each_symmetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    parts = Discriminant.score_parts

    def counted(self: Discriminant, images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(images))
        return parts(self, images)

    monkeypatch.setattr(Discriminant, "score_parts", counted)
    trained("best", tumor=6)
    assert sum(seen) == 24 * SYMMETRIES
    assert max(seen) == 8  # the batch size
    seen.clear()
    trained("best", tumor=6, augment=False)
    assert sum(seen) == 24


def test_a_discriminant_tells_unseen_patches_apart_and_scores_them_around_0_and_1() -> None:
    model = trained("best")[0]
    images, labels = patches(12, 12, 1)
    scores = score_patches(model, images, fabric=FABRIC, batch_size=8)
    assert auroc(labels, scores) == 1
    assert np.median(scores[~labels]) < 0.5 < np.median(scores[labels])


def test_training_patches_score_0_if_normal_and_1_if_tumor_on_average_of_their_views() -> None:
    model = trained("best")[0]
    images, labels = patches(18, 6, 0)
    views = [restained(symmetric(images, s)) for s in range(SYMMETRIES)]
    scores = np.mean(
        [score_patches(model, view, fabric=FABRIC, batch_size=8) for view in views], axis=0
    )
    # Nearly: the transposed view of a score was shown in another stain.
    assert scores[~labels].mean() == pytest.approx(0, abs=0.03)
    assert scores[labels].mean() == pytest.approx(1, abs=0.03)


def test_validation_patches_choose_nothing_of_a_discriminant() -> None:
    val = ValidationPatches(*patches(8, 8, 2))
    with_val, outcome, config = trained("best", val=val)
    free, nothing, _ = trained("best")
    for name, tensor in free.trainable_state().items():
        assert torch.equal(tensor, with_val.trainable_state()[name]), name
    again = score_patches(with_val, val.images, fabric=FABRIC, batch_size=config.batch_size)
    assert outcome.val_scores is not None
    assert np.array_equal(outcome.val_scores, again)
    assert (outcome.history, outcome.best) == ((), None)
    assert nothing.val_scores is None


def test_patches_of_the_same_pixels_in_both_classes_are_refused() -> None:
    model = build_network(Discriminant, build_teacher("resnet18", pretrained=False), 0)
    images = np.full((4, 3, EDGE, EDGE), 255, np.uint8)
    config = train_config({"teacher": "resnet18", "device": "cpu"})
    with pytest.raises(QprdError, match="cannot be told from the normal ones"):
        train_model(
            model,
            PatchDataset(PatchTable(()), images[:0], patch_px=EDGE),
            images,
            np.array([False, False, True, True]),
            val=None,
            config=config,
            fabric=FABRIC,
            progress=SilentProgress(),
        )


def test_without_tumor_patches_the_score_is_the_plain_difference() -> None:
    model, outcome, _ = trained("best", tumor=0, val=ValidationPatches(*patches(4, 4, 2)))
    state = model.trainable_state()
    assert all(float(state[f"head.linear_{scale}"].abs().sum()) == 0 for scale in (1, 2, 3))
    assert torch.equal(state["head.difference"], torch.ones(3))
    assert float(state["head.std_1"].std()) > 0
    assert outcome.val_scores is not None
    assert ((outcome.val_scores >= 0) & (outcome.val_scores <= 6)).all()


def test_the_papers_recipe_has_neither_head_nor_annealing() -> None:
    model, outcome, _ = trained("paper", val=ValidationPatches(*patches(8, 8, 2)), lr=1e-3)
    assert {name.split(".")[0] for name in model.trainable_state()} == {"bottleneck", "student"}
    rows = [row for row in outcome.history if row.val_accuracy is not None]
    assert outcome.best is not None
    assert outcome.best.val_accuracy == max(row.val_accuracy or 0 for row in rows)


def test_the_documented_teacher_and_head_of_another_package_are_used(tmp_path: Path) -> None:
    with documented_package(tmp_path):
        model = trained("best", teacher="my-teacher", head="my-head")[0]
        usual = trained("best", teacher="my-teacher")[0]
    images, labels = patches(12, 12, 1)
    found, others = (score_patches(m, images, fabric=FABRIC, batch_size=8) for m in (model, usual))
    assert auroc(labels, found) == 1
    assert np.abs(found - others).max() > 0.1
    # A bundle of it needs no package: its tensors are those of the usual head.
    usual.load_trainable_state(model.trainable_state())
    again = score_patches(usual, images, fabric=FABRIC, batch_size=8)
    assert again == pytest.approx(found)


@pytest.mark.parametrize(("recipe", "tumor"), [("best", 0), ("paper", 6)])
def test_the_documented_loss_of_another_package_is_used(
    recipe: Recipe, tumor: int, tmp_path: Path
) -> None:
    with documented_package(tmp_path):
        theirs = trained(recipe, tumor=tumor, loss="my-loss")[1]
    usual = trained(recipe, tumor=tumor)[1]
    assert all(np.isfinite(row.loss) for row in theirs.history)
    assert theirs.history[0].loss != pytest.approx(usual.history[0].loss)
