"""Arguments as users give them, turned into what the jobs take, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qprd.given_settings import by_field, predict_config, train_config
from qprd.jobs.predict.model import Model, bundle_of
from qprd.settings import PredictConfig, TrainConfig


def training_settings(
    config: TrainConfig | str | Path | None,
    settings: Mapping[str, Any],
    parent: Model | str | Path | None,
) -> TrainConfig:
    """The settings of a training; the command line makes them before it opens the project.

    Raises:
        QprdError: One is unknown or out of range, or the file or the parent cannot be read.
    """
    from qprd.jobs.train.parent import parent_settings

    values, file = merged(config, settings)
    inherited = None if parent is None else parent_settings(bundle_of(parent))
    return train_config(values, file, inherited)


def prediction_settings(
    config: PredictConfig | str | Path | None, settings: Mapping[str, Any]
) -> PredictConfig:
    """The settings of a prediction, made and checked like those of a training."""
    return predict_config(*merged(config, settings))


def merged(
    config: BaseModel | str | Path | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], Path | None]:
    """Settings by name, and the file to take others from."""
    if isinstance(config, BaseModel):
        given = by_field(type(config), settings, None)
        return {**config.model_dump(exclude_unset=True), **given}, None
    return dict(settings), None if config is None else Path(config)
