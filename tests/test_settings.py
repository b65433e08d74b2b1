from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.errors import ExitCode, QprdError
from qprd.option import help_text, option_of
from qprd.settings import (
    PredictConfig,
    TrainConfig,
    predict_config,
    stored_train_config,
    train_config,
)
from qprd.slides.tissue import MIN_AREA_UM2

TEACHERS = ("wide_resnet50_2", "resnet18", "resnet50", "efficientnet_lite0", "timm:vit_tiny")


def test_the_papers_recipe_has_the_papers_defaults() -> None:
    config = TrainConfig(recipe="paper")
    assert (config.teacher, config.patch_px, config.batch_size) == ("wide_resnet50_2", 256, 32)
    assert (config.normal, config.tumor, config.epochs, config.lr) == (5000, 500, 50, 1e-5)
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
    assert told["mpp"].endswith("Default: 0.25 for a ResNet teacher, else 0.5.")
    assert told["augment"].endswith("Default: yes; with recipe paper no.")


def test_a_stored_configuration_without_a_recipe_is_the_papers() -> None:
    values = train_config({"recipe": "paper"}).model_dump(mode="json")
    del values["recipe"]
    assert stored_train_config(values, "bundle").recipe == "paper"


def test_flags_win_over_the_file_and_the_file_over_the_teacher(tmp_path: Path) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text('[train]\nteacher = "efficientnet_lite0"\nepochs = 3\nlr = 0.5\nimage = "a"\n')
    config = train_config({"lr": 0.25, "epochs": None, "images": []}, file)
    assert (config.lr, config.epochs, config.patch_px, config.images) == (0.25, 3, 128, ("a",))


def test_a_setting_may_be_given_by_the_name_of_its_option(tmp_path: Path) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text('[train]\nimage = "a"\n')
    assert train_config({"image": ["b"]}, file).images == ("b",)
    assert train_config({"images": ["b"]}, file).images == ("b",)


def test_a_setting_that_does_not_exist_is_answered_with_one_that_does() -> None:
    with pytest.raises(QprdError, match="no setting 'epoch'") as caught:
        train_config({"epoch": 3})
    assert caught.value.fix == "Did you mean 'epochs'?"


def test_options_may_be_spelled_with_dashes_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text('[train]\ntumor-class = ["Tumor", "Metastasis"]\nbatch-size = 8\n')
    config = train_config({}, file)
    assert (config.tumor_class, config.batch_size) == (("Tumor", "Metastasis"), 8)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nepoch = 3\n", "Did you mean 'epochs'?"),
        ("[trian]\nepochs = 3\n", "Put settings under"),
        ("epochs = 3\n", "Put settings under"),
        ("[train\n", "not valid TOML"),
        ('[train]\nepochs = "three"\n', "epochs cannot be 'three'"),
        ("[train]\nnormal = 0\n", "normal cannot be 0"),
        ("[train]\nlr = nan\n", "lr cannot be nan"),
        (f"[train]\nseed = {'9' * 5000}\n", "not valid TOML"),
        (f"[train]\nlr = {'[' * 6000}\n", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text(text)
    with pytest.raises(QprdError) as caught:
        train_config({}, file)
    assert told in str(caught.value)
    assert caught.value.exit_code != ExitCode.OK


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="cannot be read") as caught:
        train_config({}, tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        {"alpha": "1.5"},
        {"alpha": "half"},
        {"patch_px": 100},
        {"batch_size": 1},
        {"device": "gpu"},
        {"device": "cuda:"},
        {"device": "cpu:1"},
        {"similarity": "patch"},
        {"seed": -1},
        {"mpp": 0.0},
        {"operating_point": "sensitivity=2"},
        {"val_patches": 10**6},
    ],
)
def test_a_value_out_of_range_names_its_option(flags: dict[str, object]) -> None:
    with pytest.raises(QprdError) as caught:
        train_config(flags)
    assert caught.value.where == "--" + next(iter(flags)).replace("_", "-")
    assert caught.value.exit_code == ExitCode.USAGE


@given(st.floats(0, 1), st.integers(1, 10**6), st.sampled_from(["image", "location"]))
def test_a_stored_configuration_is_read_back_as_it_was(
    alpha: float, normal: int, similarity: str
) -> None:
    config = train_config({"alpha": alpha, "normal": normal, "similarity": similarity})
    assert TrainConfig(**config.model_dump(mode="json")) == config


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


@pytest.mark.parametrize("damage", [{"normal": "many"}, {"unknown": 1}, {"tumor_class": []}])
def test_a_strangers_stored_configuration_is_no_traceback(damage: dict[str, object]) -> None:
    good = train_config({}).model_dump(mode="json")
    assert stored_train_config(good, "bundle") == train_config({})
    with pytest.raises(QprdError, match="damaged"):
        stored_train_config(good | damage, "bundle")


def test_the_tissue_mask_and_the_settings_agree_on_the_smallest_piece() -> None:
    assert TrainConfig().tissue_min_area_um2 == MIN_AREA_UM2
