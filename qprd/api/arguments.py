"""Arguments as users give them, turned into what the jobs take, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from qprd.errors import ExitCode, QprdError
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.model import Model, bundle_of
from qprd.settings import PredictConfig, TrainConfig

if TYPE_CHECKING:
    from qprd.jobs.train.run import Run


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

    values, file = _merged(config, settings)
    inherited = None if parent is None else parent_settings(bundle_of(parent))
    return train_config(values, file, inherited)


def refuse_with_resume(**given: object) -> None:
    """Refuse arguments that a training which is resumed has already.

    Raises:
        QprdError: one is given.
    """
    for name, value in given.items():
        if value is not None:
            raise QprdError(
                f"A training that is resumed keeps its {name}: no other can be given.",
                where="--resume",
                fix="Leave it out, or train anew without --resume.",
                exit_code=ExitCode.USAGE,
            )


def resumed_settings(
    run: Run, config: TrainConfig | str | Path | None, settings: Mapping[str, Any]
) -> TrainConfig:
    """The settings of a training that is resumed.

    Raises:
        QprdError: One is given that contradicts those it began with.
    """
    return run.config(*_merged(config, settings))


def prediction_settings(
    config: PredictConfig | str | Path | None, settings: Mapping[str, Any]
) -> PredictConfig:
    """The settings of a prediction, made and checked like those of a training."""
    return predict_config(*_merged(config, settings))


def _merged(
    config: BaseModel | str | Path | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], Path | None]:
    """Settings by name, and the file to take others from."""
    if isinstance(config, BaseModel):
        return {**config.model_dump(exclude_unset=True), **settings}, None
    return dict(settings), path_of(config)


def path_of(path: str | Path | None) -> Path | None:
    """A path, where one is given."""
    return None if path is None else Path(path)
