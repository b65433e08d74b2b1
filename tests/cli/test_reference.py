from __future__ import annotations

import re
from pathlib import Path

import pytest

from qprd.cli.reference import REFERENCE, TEMPLATE, reference, template
from qprd.given_settings import predict_config, train_config
from qprd.settings import PredictConfig, TrainConfig

ROOT = Path(__file__).parents[2]


def test_the_files_in_the_repository_are_up_to_date() -> None:
    hint = "run python -m qprd.cli.reference"
    assert (ROOT / REFERENCE).read_text(encoding="utf-8") == reference(), hint
    assert (ROOT / TEMPLATE).read_text(encoding="utf-8") == template(), hint


def test_the_template_changes_nothing_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text(template())
    assert train_config({}, file) == TrainConfig()
    assert predict_config({}, file) == PredictConfig()


@pytest.mark.parametrize("key", re.findall(r"^#([a-z0-9-]+) = ", template(), re.MULTILINE))
def test_every_key_of_the_template_can_be_set(key: str, tmp_path: Path) -> None:
    file = tmp_path / "qprd.toml"
    file.write_text(re.sub(rf"^#{key} = ", f"{key} = ", template(), flags=re.MULTILINE))
    train_config({}, file)
    predict_config({}, file)


def test_the_template_has_every_setting() -> None:
    keys = re.findall(r"^#([a-z0-9-]+) = ", template(), re.MULTILINE)
    assert len(keys) == len(TrainConfig.model_fields) + len(PredictConfig.model_fields)


def test_a_choice_and_its_default_are_in_the_reference() -> None:
    assert "| `--recipe` | best\\|paper | How the model" in reference()
    assert "Default: 0.25 for a ResNet teacher, else 0.5; what a pathology" in reference()
