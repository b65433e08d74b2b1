from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qprd
from qprd.errors import QprdError
from qprd.given_settings import predict_config, train_config
from qprd.option import help_text, option_of
from qprd.settings import MOST_TRAINING, PredictConfig, TrainConfig

TEACHERS = ("wide_resnet50_2", "resnet18", "resnet50", "efficientnet_lite0", "timm:vit_tiny")

SETTINGS = {*TrainConfig.model_fields, *PredictConfig.model_fields}


def test_the_papers_recipe_has_the_papers_defaults() -> None:
    config = TrainConfig(recipe="paper")
    assert (config.teacher, config.patch_px, config.batch_size) == ("wide_resnet50_2", 256, 32)
    assert (config.normal, config.tumor, MOST_TRAINING) == (
        None,
        None,
        {"normal": 5000, "tumor": 500},
    )
    assert (config.epochs, config.lr) == (50, 1e-5)
    assert (config.alpha, config.gamma, config.similarity) == (0.1, 2.0, "image")
    assert not config.augment


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_best_recipe_is_the_default_and_the_same_for_every_teacher(teacher: str) -> None:
    config = TrainConfig(teacher=teacher)
    assert (
        config == TrainConfig(recipe="best", teacher=teacher) == train_config({"teacher": teacher})
    )
    assert (config.epochs, config.lr, config.augment) == (10, 1e-3, True)


def test_a_small_teacher_has_its_own_patches_and_schedule() -> None:
    config = TrainConfig(recipe="paper", teacher="efficientnet_lite0")
    assert (config.mpp, config.patch_px, config.epochs, config.lr) == (0.5, 128, 15, 1e-3)
    for teacher in ("resnet18", "resnet34", "resnet50"):
        assert TrainConfig(teacher=teacher).patch_px == 256


def test_what_is_given_wins_over_the_defaults_of_recipe_and_teacher() -> None:
    config = TrainConfig(teacher="efficientnet_lite0", augment=False, epochs=3, patch_px=256)
    assert (config.augment, config.epochs, config.patch_px, config.lr) == (False, 3, 256, 1e-3)


@pytest.mark.parametrize("config", [TrainConfig, PredictConfig])
def test_every_setting_is_explained_with_its_default(
    config: type[TrainConfig | PredictConfig],
) -> None:
    for name, field in config.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        has_default = "Default: " in help_text(field)
        assert has_default or option_of(field).example is not None, name


def test_a_default_that_depends_on_others_is_put_into_words() -> None:
    told = {name: help_text(field) for name, field in TrainConfig.model_fields.items()}
    assert told["lr"].endswith(
        "Default: 0.001; with recipe paper 1e-5 for a ResNet teacher, else 0.001."
    )
    assert told["mpp"].endswith(
        "Default: 0.25 for a ResNet teacher, else 0.5; what a pathology network was trained at "
        "(qprd teachers)."
    )
    assert told["augment"].endswith("Default: yes; with recipe paper no.")


def test_auto_is_kept_as_a_word() -> None:
    assert train_config({"alpha": "auto"}).alpha == "auto"
    assert predict_config({"threshold": "auto"}).threshold == "auto"
    assert predict_config({"threshold": "2"}).threshold == 2.0


def test_an_operating_point_and_a_threshold_exclude_each_other() -> None:
    assert train_config({}).operating_point == "accuracy"
    assert train_config({"operating_point": " sensitivity = .95"}).operating_point == (
        "sensitivity=0.95"
    )
    assert predict_config({"operating_point": "youden", "threshold": "auto"}).threshold == "auto"
    with pytest.raises(QprdError, match="not both"):
        predict_config({"operating_point": "youden", "threshold": "2"})


def test_masks_need_a_similarity_per_location() -> None:
    with pytest.raises(QprdError, match="labels = mask needs similarity = location"):
        train_config({"labels": "mask"})
    assert train_config({"labels": "mask", "similarity": "location"}).labels == "mask"


def test_no_function_below_the_api_has_defaults_of_its_own_for_settings() -> None:
    """A second default is silent: it holds where a caller forgets the setting."""
    # Equations, and the resolution of a mask: neither is a setting.
    allowed = {"focal_similarity_loss", "plain_similarity_loss", "tissue_mask"}
    package = Path(qprd.__file__).parent
    found = [
        f"{path.relative_to(package)}: {function.name}({name})"
        for room in ("training", "scoring", "results", "sampling", "model", "slides")
        for path in (package / room).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name not in allowed
        for name, default in defaults_of(function.args)
        if name in SETTINGS and isinstance(default, ast.Constant) and default.value
    ]
    assert found == []


def defaults_of(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr | None]]:
    last = len(arguments.args) - len(arguments.defaults)
    names = [argument.arg for argument in (*arguments.args[last:], *arguments.kwonlyargs)]
    return zip(names, (*arguments.defaults, *arguments.kw_defaults), strict=True)
