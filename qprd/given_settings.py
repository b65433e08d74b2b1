"""Settings made of what is given: options, keyword arguments, a TOML file, a bundle."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from qprd.errors import ExitCode, QprdError, parse_fault, read_errors
from qprd.option import option_name
from qprd.settings import PredictConfig, TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config", bound=BaseModel)

#: Settings of a machine, which may differ where a training is resumed.
_OF_A_MACHINE: Final = {"weights", "device", "devices"}
#: Settings of a machine or of one run, which a bundle does not hand on.
_NOT_HANDED_ON: Final = {*_OF_A_MACHINE, "precision", "images", "exclude"}


def train_config(
    given: Mapping[str, Any], file: Path | None = None, parent: TrainConfig | None = None
) -> TrainConfig:
    """Combine given values, the ``[train]`` table of a TOML file, a parent's settings and defaults.

    Args:
        given: Values by the name of the setting or of its option; None and empty lists count as not
            given.
        file: The TOML file.
        parent: Settings of the bundle that the training continues from. They replace the defaults,
            except for teacher weights, device, precision and choice of images.

    Raises:
        QprdError: A value is out of range, or a setting unknown; the message names it.
    """
    inherited = {} if parent is None else parent.model_dump(exclude=_NOT_HANDED_ON)
    return _build(TrainConfig, {**inherited, **_tables(TrainConfig, "train", given, file)})


def resumed_train_config(
    given: Mapping[str, Any], file: Path | None, stored: TrainConfig, *, run: str
) -> TrainConfig:
    """The settings of a training that is resumed, on other devices if these are given.

    Args:
        given: As for `train_config`.
        file: The TOML file.
        stored: The settings with which it began.
        run: Its name, for the error.

    Raises:
        QprdError: another setting is given that differs from the stored one.
    """
    values = _tables(TrainConfig, "train", given, file)
    wanted = _build(TrainConfig, {**stored.model_dump(), **values})
    differing = [
        f"--{option_name(name, TrainConfig.model_fields[name]).replace('_', '-')} is "
        f"{getattr(stored, name)!r} there, not {getattr(wanted, name)!r}"
        for name in values
        if name not in _OF_A_MACHINE and getattr(wanted, name) != getattr(stored, name)
    ]
    if differing:
        raise QprdError(
            f"The training {run} began with other settings: {'; '.join(differing)}.",
            where="--resume",
            fix="Leave these options out, or train anew without --resume.",
            exit_code=ExitCode.USAGE,
        )
    return wanted


def predict_config(given: Mapping[str, Any], file: Path | None = None) -> PredictConfig:
    """Combine given values, the ``[predict]`` table of a file and defaults, as `train_config`."""
    return _build(PredictConfig, _tables(PredictConfig, "predict", given, file))


def stored_train_config(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Read the settings that a bundle was trained with from its ``bundle.json``.

    Bundles that name no recipe were made before there was a choice, by ``paper``.

    Raises:
        QprdError: They are damaged; bundles come from strangers.
    """
    try:
        return TrainConfig.model_validate({"recipe": "paper", **values})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "its settings"
        raise QprdError(
            f"The bundle's configuration is damaged: {place}: {first['msg'].lower()}.",
            where=where,
            fix="Take another copy of the bundle, or train again.",
        ) from error


def some_settings(config: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings for a command that takes a few of a model only; what is not given is left out.

    Raises:
        QprdError: A value is out of range; the message names it.
    """
    values = by_field(config, given, None)
    checked = _build(config, values)
    return {name: getattr(checked, name) for name in values}


def _tables(
    config: type[BaseModel], table: str, given: Mapping[str, Any], file: Path | None
) -> dict[str, Any]:
    """What is given, and for the rest what stands in a table of a file."""
    stored = {} if file is None else _read_tables(file).get(table, {})
    return {**by_field(config, stored, str(file)), **by_field(config, given, None)}


def _build(config: type[Config], values: Mapping[str, Any]) -> Config:
    try:
        return config(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem, where = f"The settings do not fit together: {first['msg'].lower()}", None
        if first["loc"]:
            name = str(first["loc"][0])
            option = option_name(name, config.model_fields[name]).replace("_", "-")
            problem = f"The setting {option} cannot be {values[name]!r}: {first['msg'].lower()}"
            where = f"--{option}"
        raise QprdError(
            f"{problem}.",
            where=where,
            fix="Change the option, or its line in the --config file.",
            exit_code=ExitCode.USAGE,
        ) from error


def by_field(
    config: type[BaseModel], values: Mapping[str, Any], where: str | None
) -> dict[str, Any]:
    """Values by the names of the model's fields, from those of options; None is not given."""
    names = {option_name(name, field): name for name, field in config.model_fields.items()}
    names |= {name: name for name in config.model_fields}
    found = {}
    for key, value in values.items():
        if value in (None, (), []):
            continue
        spelled = key.replace("-", "_")
        if spelled not in names:
            close = difflib.get_close_matches(spelled, names, n=1)
            raise QprdError(
                f"There is no setting {key!r} here.",
                where=where,
                fix=f"Did you mean {close[0]!r}?" if close else f"Use one of {', '.join(names)}.",
                exit_code=ExitCode.USAGE,
            )
        if names[spelled] in found:
            raise QprdError(
                f"The setting {key!r} is given twice, in two spellings.",
                where=where,
                fix="Leave one of them out.",
                exit_code=ExitCode.USAGE,
            )
        found[names[spelled]] = value
    return found


def _read_tables(file: Path) -> dict[str, dict[str, Any]]:
    """The ``[train]`` and ``[predict]`` tables of a TOML file."""
    with read_errors("The configuration file", file, fix="Check the path given to --config."):
        content = file.read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise QprdError(
            f"The configuration file is not valid TOML: {parse_fault(error)}.",
            where=str(file),
            fix="Correct it; examples/qprd.toml shows how settings are written.",
        ) from error
    for key, table in document.items():
        if key not in ("train", "predict") or not isinstance(table, dict):
            raise QprdError(
                f"The configuration file has an unknown table or key {key!r}.",
                where=str(file),
                fix="Put settings under [train] or [predict].",
            )
    return document
