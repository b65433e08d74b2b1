"""``bundle.json`` as text: the current format, and the earlier ones, which are still read.

- Format 1 had one kind of calibration, which it did not name, and no validation scores.
- Format 2 had the validation scores.
- Format 3 had ancestors and annotations, and often a second set of threshold, calibration and
  validation scores, ``dense``, for scores from large fields. Those were used unless ``--exact``
  asked for scores patch by patch, so they are what is kept of the two.
- Format 4 has one way of scoring, and groups what the others had side by side. Its models all have
  a student: of the recipe ``best`` on standardized maps, with a linear classifier beside it.
- Format 5, the current one, names its model, numbers the trainings of a project, and has
  fingerprints of the slides, of which the others have names alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from qprd.bundle.records import BundleInfo
from qprd.errors import QprdError

FORMAT: Final = 5

#: What to do about a bundle that cannot be read.
DAMAGED_FIX: Final = "Take another copy of the bundle, or train again."

_ADAPTER: TypeAdapter[BundleInfo] = TypeAdapter(BundleInfo)


def info_to_json(info: BundleInfo) -> str:
    """Write the text of a ``bundle.json``.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot hold.
    """
    document = {"format": FORMAT, **_ADAPTER.dump_python(info, mode="json")}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def info_from_json(text: str, where: str) -> BundleInfo:
    """Read and check the text of a ``bundle.json`` of this or an earlier format.

    Raises:
        QprdError: it is not valid, or of a newer format.
    """
    try:
        document = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise QprdError(f"Not valid JSON: {error}.", where=where, fix=DAMAGED_FIX) from error
    found = document.pop("format", None) if isinstance(document, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise QprdError(
            "Not a bundle: it states no format.",
            where=where,
            fix="Name a folder in qprd/bundles.",
        )
    if found > FORMAT:
        raise QprdError(
            f"This bundle was written by a newer qprd (format {found}; "
            f"this one reads up to {FORMAT}).",
            where=where,
            fix="Upgrade qprd: pip install --upgrade qprd",
        )
    try:
        current = document if found >= 4 else _grouped(document)
        current = current if found >= 5 else _with_model(current)
        _name_slides(current)
        return _ADAPTER.validate_json(json.dumps(current), strict=True)
    except (ValidationError, RecursionError) as error:
        raise QprdError(
            f"The bundle is damaged: {_first_problem(error)}.", where=where, fix=DAMAGED_FIX
        ) from error


def _with_model(old: Mapping[str, Any]) -> dict[str, Any]:
    """A document of format 4 in format 5."""
    network = old.get("network")
    if not isinstance(network, dict):
        return dict(old)
    model = "standardized_frd" if network.get("recipe") == "best" else "frd"
    current = {**old, "network": {**network, "model": model}}
    training = old.get("training")
    config = training.get("config") if isinstance(training, dict) else None
    if isinstance(config, dict) and config.get("scoring") == "fields":
        # It was the default, and left the choice to the network.
        current["training"] = {**dict(training or ()), "config": {**config, "scoring": "auto"}}
    return current


def _grouped(old: Mapping[str, Any]) -> dict[str, Any]:
    """A document of format 1 to 3 in format 4, to be checked like any other.

    A key that none of them had stays, and is refused as unknown.
    """
    document = dict(old)

    def taken(*keys: str) -> dict[str, Any]:
        return {key: document.pop(key) for key in keys if key in document}

    network = {"recipe": "paper", **taken("recipe", "teacher", "mpp", "patch_px")}
    scoring = {"by": "patches", "patch_score": "mean"}
    scoring |= taken("patch_score", "threshold", "calibration", "validation")
    dense = document.pop("dense", None)
    if isinstance(dense, dict):
        scoring |= {**dense, "by": "fields"}
    elif dense is not None:
        document["dense"] = dense
    training = taken(
        "config",
        "classes",
        "patches",
        "validation_slides",
        "metrics",
        "ancestors",
        "annotations",
        "review",
    )
    if "training_slides" in document:
        training["slides"] = document.pop("training_slides")
    config = training.get("config")
    if isinstance(config, dict) and "exact" in config:
        exact = config["exact"]
        others = {key: value for key, value in config.items() if key != "exact"}
        training["config"] = {**others, "scoring": "patches" if exact else "fields"}
    return {"network": network, "scoring": scoring, "training": training, **document}


def _name_slides(document: Mapping[str, Any]) -> None:
    """Make records of slides that are known by their names alone."""
    training = document.get("training")
    for key in ("slides", "validation_slides"):
        if isinstance(training, dict) and isinstance(names := training.get(key), list):
            training[key] = [{"name": n} if isinstance(n, str) else n for n in names]


def _first_problem(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return f"{place!r}: {first['msg'].lower()}"


def _reject_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")
