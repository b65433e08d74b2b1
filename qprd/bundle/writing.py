"""Writing a bundle: a folder with ``model.safetensors`` and ``bundle.json``.

It holds bottleneck, student and all that is needed to use them, but not the teacher, whose hash it
records.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.formats import info_to_json
from qprd.bundle.names import INFO_FILE, MODEL_FILE, is_bundle, reserve_bundle
from qprd.bundle.records import BundleInfo
from qprd.errors import QprdError
from qprd.files.atomic import remove_if_empty, replacing_folder, write_errors
from qprd.files.tensors import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from qprd.model.network import Network


@contextmanager
def new_bundle_folder(bundles: Path, created: datetime, teacher: str) -> Iterator[Path]:
    """Reserve the folder of a new bundle (`reserve_bundle`); it goes again if it stays empty.

    Raises:
        QprdError: it cannot be made.
    """
    with write_errors("The bundle", bundles):
        folder = reserve_bundle(bundles, created, teacher)
    try:
        yield folder
    finally:
        remove_if_empty(folder)


def save_bundle(folder: Path, model: Network, info: BundleInfo) -> None:
    """Write a bundle, all or nothing.

    An earlier bundle in ``folder`` is replaced, other files in it (such as a training history) are
    kept.

    Raises:
        QprdError: it cannot be written, a weight is not finite, or ``folder`` holds other things.
            ``folder`` is then as it was.
    """
    if info.network.teacher.sha256 != model.teacher.weights_sha256:
        raise ValueError("info describes another teacher than the model's")
    state = model.trainable_state()
    require_finite(state, where=str(folder), fix="Training diverged: try a lower --lr.")
    text = info_to_json(info)
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not is_bundle(folder):
        raise QprdError(
            "The folder exists and is not a bundle.", where=str(folder), fix="Name another one."
        )
    with write_errors("The bundle", folder), replacing_folder(folder) as partial:
        if folder.exists():
            others = shutil.ignore_patterns(MODEL_FILE, INFO_FILE)
            shutil.copytree(folder, partial, symlinks=True, ignore=others, dirs_exist_ok=True)
        save_tensors(state, partial / MODEL_FILE)
        (partial / INFO_FILE).write_text(text, encoding="utf-8")


def require_finite(state: Mapping[str, Tensor], where: str, fix: str) -> None:
    """Refuse weights that are not numbers."""
    import torch

    for name, tensor in state.items():
        if not math.isfinite(float(tensor.sum(dtype=torch.float64))):
            raise QprdError(f"The weights {name} are not finite.", where=where, fix=fix)
