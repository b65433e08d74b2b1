"""Reading a bundle, which may come from a stranger.

Reading one runs no code: safetensors and JSON only, of bounded size, with every name, type, shape
and value checked. What a bundle says of itself is read without torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError, safe_open

from qprd.bundle.formats import DAMAGED_FIX, info_from_json
from qprd.bundle.names import INFO_FILE, MODEL_FILE, is_bundle
from qprd.bundle.records import MAX_NUMBER, BundleInfo, TeacherInfo
from qprd.bundle.writing import require_finite
from qprd.errors import QprdError
from qprd.files.jsonfile import read_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from qprd.model.network import Network
    from qprd.model.teacher import Teacher

#: Largest ``bundle.json`` that is read.
MAX_INFO_BYTES: Final = 8 * 2**20
#: Room for the safetensors header beside the tensors.
_MAX_HEADER_BYTES: Final = 2**20
_LONG_AGO: Final = datetime.min.replace(tzinfo=timezone.utc)


def read_bundle_info(folder: Path) -> BundleInfo:
    """Read a bundle's ``bundle.json``.

    Raises:
        QprdError: it is missing, too large, damaged, or of a newer format.
    """
    if not is_bundle(folder):
        raise QprdError(
            f"There is no bundle here: {INFO_FILE} is missing.",
            where=str(folder),
            fix="Give the folder that qprd train wrote: --bundle DIR.",
        )
    path = folder / INFO_FILE
    text = read_text(path, what="a description of a bundle", limit_bytes=MAX_INFO_BYTES)
    return info_from_json(text, str(path))


def load_bundle(
    folder: Path, *, weights: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[Network, BundleInfo]:
    """Load a bundle, with its teacher, in evaluation mode. No code in it can run.

    Raises:
        QprdError: the bundle is damaged or newer, or the teacher is not the one it was trained
            with.
    """
    import torch

    from qprd.model.assembly import MODELS
    from qprd.model.teacher import build_teacher

    info = read_bundle_info(folder)
    described = info.network.teacher
    teacher = build_teacher(
        described.name,
        weights=weights,
        pretrained=described.pretrained,
        layers=described.layers,
        download=False,
    )
    _check_teacher(teacher, described, where=str(folder))
    with torch.device("meta"):
        model = MODELS[info.network.model](teacher)
    state = _read_weights(folder / MODEL_FILE, model.trainable_state())
    for part in model.trained:
        getattr(model, part).to_empty(device="cpu")
    model.load_trainable_state(state)
    return model.eval().to(device), info


def newest_bundle(folder: Path) -> Path:
    """Find the bundle of the last training among a folder's subfolders.

    The trainings of a project are numbered, as clocks may be wrong. Bundles of an earlier qprd,
    which have no number, go by their dates, and a date in the future is not believed. A damaged
    bundle is passed over with a warning.

    Raises:
        QprdError: there is none.
    """
    now = datetime.now(timezone.utc)
    ranked = [
        (info.number, info.created if info.created <= now else _LONG_AGO, path.name)
        for info, path in _bundles(folder)
    ]
    if not ranked:
        raise QprdError(
            "There is no bundle yet.",
            where=str(folder),
            fix="Train one with qprd train, or give one: --bundle DIR.",
        )
    return folder / max(ranked)[-1]


def next_number(folder: Path) -> int:
    """The number of the next training, with which its bundle is newer than all in the folder."""
    last = max((info.number for info, _ in _bundles(folder)), default=0)
    return min(last + 1, MAX_NUMBER)


def _bundles(folder: Path) -> Iterator[tuple[BundleInfo, Path]]:
    for candidate in sorted(folder.iterdir()) if folder.is_dir() else []:
        if candidate.name.startswith(".") or not is_bundle(candidate):
            continue
        try:
            yield read_bundle_info(candidate), candidate
        except QprdError as error:
            warnings.warn(f"Bundle {candidate.name} is passed over: {error.problem}", stacklevel=3)


def _check_teacher(teacher: Teacher, expected: TeacherInfo, where: str) -> None:
    if teacher.weights_sha256 != expected.sha256:
        raise QprdError(
            f"The bundle was trained with other weights of the teacher {expected.name}: "
            f"{expected.sha256}, not {teacher.weights_sha256}.",
            where=where,
            fix=f"Give the weights it was trained with ({expected.source}): --weights FILE",
        )
    if (teacher.mean, teacher.std) != (expected.mean, expected.std):
        raise QprdError(
            f"The bundle was trained with another input normalization: mean {expected.mean} and "
            f"std {expected.std}, not {teacher.mean} and {teacher.std}.",
            where=where,
            fix="Use the qprd and timm versions in its bundle.json.",
        )


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read exactly the expected tensors of a safetensors file, which may be hostile.

    Names, shapes and types are checked before any is allocated; ``expected`` may be on the meta
    device.
    """

    def damaged(what: str) -> QprdError:
        return QprdError(f"The bundle is damaged: {what}.", where=str(path), fix=DAMAGED_FIX)

    if not path.is_file():
        raise damaged(f"{path.name} is missing")
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    try:
        if path.stat().st_size > size + _MAX_HEADER_BYTES:
            raise damaged(f"{path.name} is too large")
        with safe_open(path, framework="pt", device="cpu") as file:
            there = set(file.keys())
            missing, unknown = sorted(expected.keys() - there), sorted(there - expected.keys())
            if missing or unknown:
                raise damaged(
                    f"{len(missing)} tensors are missing and {len(unknown)} are unknown, such as "
                    f"{[*missing, *unknown][0][:100]!r}"
                )
            for name, tensor in expected.items():
                found = tuple(file.get_slice(name).get_shape())
                if found != tuple(tensor.shape):
                    raise damaged(f"{name} has shape {found}, not {tuple(tensor.shape)}")
            # Clones: the originals are views of the mapped file, which may change later.
            state = {name: file.get_tensor(name).clone() for name in expected}
    except (OSError, SafetensorError) as error:
        raise damaged(f"{path.name} is not a safetensors file") from error
    for name, tensor in expected.items():
        if state[name].dtype != tensor.dtype:
            raise damaged(f"{name} is {state[name].dtype}, not {tensor.dtype}")
    require_finite(state, where=str(path), fix="Train again.")
    return state
