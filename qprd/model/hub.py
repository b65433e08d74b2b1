"""Teachers whose weights are on the Hugging Face hub: known ones by name, and any repository.

Weights are taken from a file, or from the user's cache of the hub. They are downloaded only if the
user named the teacher, and the license is told first; because of a name in a bundle, never. A
repository holds a description (JSON) and tensors: no code of it is run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import nn

from qprd.errors import ExitCode, QprdError
from qprd.known_teachers import HUB_PREFIX, KnownTeacher, known_teacher
from qprd.model.backbone import RANDOM_WEIGHTS, Backbone, Triple
from qprd.model.checkpoint_names import timm_names
from qprd.model.timm_backbone import TimmNetwork, timm_backbone
from qprd.model.weights import read_cached_state, read_state

_LOG = logging.getLogger(__name__)
_CONFIG_FILE: Final = "config.json"
_WEIGHT_FILES: Final = ("model.safetensors", "pytorch_model.bin")
_GB_PER_MILLION: Final = 4e-3  # four bytes a parameter


def is_hub_name(name: str) -> bool:
    """Whether a teacher's name is that of a known one or ``hf-hub:ORGANIZATION/NAME``."""
    return known_teacher(name) is not None or name.startswith(HUB_PREFIX)


def hub_backbone(
    timm: ModuleType,
    name: str,
    *,
    weights: Path | None,
    pretrained: bool,
    layers: Sequence[int] | None,
    download: bool,
) -> Backbone:
    """Build the backbone of a teacher on the hub.

    Args:
        timm: The module.
        name: Of a known teacher, or ``hf-hub:ORGANIZATION/NAME``.
        weights: A file of weights; None takes that in the cache.
        pretrained: False gives random weights.
        layers: As for `qprd.model.timm_backbone.timm_backbone`.
        download: Whether what is missing may be downloaded.

    Raises:
        QprdError: Weights are missing, or those of another network.
    """
    known = known_teacher(name)
    repository = name.removeprefix(HUB_PREFIX) if known is None else known.repository
    network = (
        _described(timm, name, repository, download=download)
        if known is None
        else timm_network(timm, known)
    )
    if not pretrained:
        return timm_backbone(timm, network, layers=layers, weights=None, source=RANDOM_WEIGHTS)
    path = weights or _file(name, repository, _weight_files(known), download=download)
    source = f"file {weights.name}" if weights else f"{HUB_PREFIX}{repository}"
    read = read_state(path) if weights else read_cached_state(name, path)
    state = timm_names(read, "timm" if known is None else known.naming)
    return timm_backbone(timm, network, layers=layers, weights=(state, str(path)), source=source)


def cached_weights(known: KnownTeacher) -> Path | None:
    """Find the weights of a known teacher in the user's cache of the hub."""
    found = (_cached(known.repository, file) for file in _weight_files(known))
    return next((path for path in found if path is not None), None)


def _weight_files(known: KnownTeacher | None) -> Sequence[str]:
    first = () if known is None else (known.file,)
    return tuple(dict.fromkeys((*first, *_WEIGHT_FILES)))


def timm_network(timm: ModuleType, known: KnownTeacher) -> TimmNetwork:
    """How timm builds a known teacher."""
    arguments: dict[str, Any] = dict(known.arguments)
    if known.swiglu:
        arguments |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    if known.conv_stem:
        arguments["embed_layer"] = partial(_conv_stem, timm.layers.PatchEmbed)
    return TimmNetwork(known.name, known.architecture, arguments, *known.normalization)


def _conv_stem(patch_embed: Any, **arguments: Any) -> Any:
    """Make tokens of 4 px by convolutions, as CTransPath does (Wang et al. 2022)."""
    embed = patch_embed(**arguments)
    width = arguments["embed_dim"]
    stem: list[nn.Module] = []
    for before, after in ((arguments["in_chans"], width // 8), (width // 8, width // 4)):
        stem += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    embed.proj = nn.Sequential(*stem, nn.Conv2d(width // 4, width, 1))
    return embed


def _described(timm: ModuleType, name: str, repository: str, *, download: bool) -> TimmNetwork:
    """Read what a repository says of its network."""
    path = _file(name, repository, (_CONFIG_FILE,), download=download)
    unknown = QprdError(
        f"The repository {repository} does not describe a network of timm.",
        where=str(path),
        fix="Take a repository of timm weights, or a teacher that qprd teachers lists.",
        exit_code=ExitCode.USAGE,
    )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture, normalization = config["architecture"], config["pretrained_cfg"]
        mean, std = (_triple(normalization[key]) for key in ("mean", "std"))
        arguments = dict(config.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unknown from error
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise unknown
    if not all(std):
        raise unknown
    for own in ("pretrained", "num_classes", "features_only"):
        arguments.pop(own, None)
    return TimmNetwork(name, architecture, arguments, mean, std)


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _file(name: str, repository: str, files: Sequence[str], *, download: bool) -> Path:
    """Find the first of some files in the cache, or download it.

    Raises:
        QprdError: It is not there, and may not or cannot be downloaded.
    """
    for file in files:
        found = _cached(repository, file)
        if found is not None:
            return found
    known = known_teacher(name)
    if not download:
        raise QprdError(
            f"The bundle was trained with the teacher {name}, whose weights are not on this "
            "machine, and nothing is downloaded because of a bundle."
            + (f" {known.conditions}" if known else ""),
            where=f"https://huggingface.co/{repository}",
            fix="Give the file, --weights FILE; or download it with the hub's own program: "
            f"hf download {repository} {files[0]}",
        )
    return _downloaded(name, repository, files)


def _cached(repository: str, file: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError as error:
        raise _no_repository(repository) from error
    return Path(found) if isinstance(found, str) else None


def _downloaded(name: str, repository: str, files: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    known = known_teacher(name)
    page = f"https://huggingface.co/{repository}"
    if known is not None:
        size = f", about {known.millions * _GB_PER_MILLION:.1f} GB"
        _LOG.info("%s They are downloaded now%s.", known.conditions, size)
    elif files[0] != _CONFIG_FILE:
        _LOG.info("The weights of %s are downloaded now; their license is at %s.", name, page)
    failure: Exception | None = None
    for file in files:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as error:  # no connection
            failure = error
            break
        except EntryNotFoundError as error:  # the repository calls it differently
            failure = error
        except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
            failure = error
            break
    gate = (
        f"Ask for access at {page} and log in with: hf auth login. "
        if known is None or known.gated
        else ""
    )
    reason = str(failure).strip().partition("\n")[0].rstrip(".")
    raise QprdError(
        f"The weights of {name} could not be downloaded: {reason}.",
        where=page,
        fix=f"{gate}Or fetch the file on another machine and give it: --weights FILE",
    ) from failure


def _no_repository(repository: str) -> QprdError:
    return QprdError(
        f"{repository!r} is no repository on the Hugging Face hub.",
        where="--teacher",
        fix=f"Write it as {HUB_PREFIX}ORGANIZATION/NAME.",
        exit_code=ExitCode.USAGE,
    )
