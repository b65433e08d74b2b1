"""Arguments as users give them, turned into what the jobs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qprd.jobs.predict.model import Model


def merged(
    config: BaseModel | str | Path | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], Path | None]:
    """Settings by name, and the file to take others from."""
    if isinstance(config, BaseModel):
        return {**config.model_dump(exclude_unset=True), **settings}, None
    return dict(settings), path_of(config)


def bundle_of(model: Model | str | Path) -> Path:
    """The folder of a model's bundle."""
    return model.bundle if isinstance(model, Model) else Path(model)


def path_of(path: str | Path | None) -> Path | None:
    """A path, where one is given."""
    return None if path is None else Path(path)


def names_of(names: str | Sequence[str]) -> Sequence[str]:
    """Names, of which one may be given by itself."""
    return (names,) if isinstance(names, str) else names
