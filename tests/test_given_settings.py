from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprd.api.arguments import prediction_settings
from qprd.errors import ExitCode, QprdError
from qprd.given_settings import stored_train_config, train_config
from qprd.settings import PredictConfig, TrainConfig


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
        ("[train]\npatch-px = 128\npatch_px = 256\n", "given twice"),
        ('[train]\nimage = "a"\nimages = "b"\n', "given twice"),
        ("[train\n", "not valid TOML"),
        ('[train]\nepochs = "three"\n', "epochs cannot be 'three'"),
        ("[train]\nnormal = 0\n", "normal cannot be 0"),
        ("[train]\nlr = nan\n", "lr cannot be nan"),
        (f"[train]\nseed = {'9' * 5000}\n", "not valid TOML: a number in it has too many digits."),
        (f"[train]\nlr = {'[' * 6000}\n", "not valid TOML: it is nested too deeply."),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text(text)
    with pytest.raises(QprdError) as caught:
        train_config({}, file)
    assert told in str(caught.value)
    assert "sys." not in str(caught.value)
    assert caught.value.exit_code != ExitCode.OK


def test_a_keyword_wins_over_a_settings_object_in_either_spelling() -> None:
    config = PredictConfig(images=("a",))
    for keyword in ("image", "images"):
        assert prediction_settings(config, {keyword: ("b",)}).images == ("b",)


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


@pytest.mark.parametrize("damage", [{"normal": "many"}, {"unknown": 1}, {"tumor_class": []}])
def test_a_strangers_stored_configuration_is_no_traceback(damage: dict[str, object]) -> None:
    good = train_config({}).model_dump(mode="json")
    assert stored_train_config(good, "bundle") == train_config({})
    with pytest.raises(QprdError, match=f"is damaged: {next(iter(damage))}: "):
        stored_train_config(good | damage, "bundle")
