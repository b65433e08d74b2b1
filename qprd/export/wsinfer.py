"""A bundle as WSInfer takes it: TorchScript and ``config.json``.

For ``wsinfer run --config --model-path`` and for QuPath's WSInfer extension; the format is
``model-config.schema.json`` of wsinfer-zoo, spec version 1.0.

References:
    J. Kaczmarzyk et al., "Open and reusable deep learning for pathology with WSInfer and QuPath",
    npj Precision Oncology, 2024; https://github.com/SBU-BMI/wsinfer-zoo.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from qprd.bundle.records import BundleInfo
from qprd.errors import ExitCode, QprdError
from qprd.export.scorer import TwoLogits, random_patches

#: As in the model zoo. The extension takes the only ``.pt`` of a folder, whatever its name.
MODEL_FILE = "torchscript_model.pt"
CONFIG_FILE = "config.json"
README_FILE = "README.md"

#: Logits of the written file may differ by this from those of the network it was made of.
_TOLERANCE = 1e-3


def wsinfer_files(network: TwoLogits, info: BundleInfo) -> dict[str, bytes]:
    """The files of a model for WSInfer, by name."""
    traced = traced_network(network)
    model = io.BytesIO()
    with _without_deprecation():
        torch.jit.save(traced, model)
    return {
        MODEL_FILE: model.getvalue(),
        CONFIG_FILE: (json.dumps(wsinfer_config(info), indent=2) + "\n").encode(),
        README_FILE: model_card(info).encode(),
    }


def wsinfer_config(info: BundleInfo) -> dict[str, Any]:
    """What ``config.json`` holds.

    WSInfer cuts out as many pixels of the slide as make up a patch, and leaves it to ``Resize`` to
    bring them to the patch's resolution.
    """
    return {
        "spec_version": "1.0",
        "architecture": info.network.teacher.name,
        "num_classes": 2,
        "class_names": list(class_names(info)),
        "patch_size_pixels": info.network.patch_px,
        "spacing_um_px": info.network.mpp,
        "transform": [
            {"name": "Resize", "arguments": {"size": info.network.patch_px}},
            {"name": "ToTensor"},
        ],
    }


def class_names(info: BundleInfo) -> tuple[str, str]:
    """Names of the normal and the tumor class, unlike each other: those the labels came from."""
    normal, tumor = (
        info.training.classes.get(label, ())[:1] or (default,)
        for label, default in (("normal", "Normal"), ("tumor", "Tumor"))
    )
    return (f"not {tumor[0]}" if normal == tumor else normal[0]), tumor[0]


def model_card(info: BundleInfo) -> str:
    """The text that QuPath shows beside the model, in Markdown."""
    normal, tumor = class_names(info)
    network = info.network
    lines = [
        f"# {info.name}",
        "",
        f"Tells {tumor} from {normal} in patches of {network.patch_px} px at {network.mpp:g} "
        f"um/px. Made by qprd {info.versions.get('qprd', '')} with the teacher "
        f"{network.teacher.name}. "
        "For research only.",
        "",
        f"The probability holds for as much {tumor} as {normal}, the mix of the patches it was "
        "calibrated on.",
    ]
    if info.scoring.calibration is not None and info.scoring.threshold is not None:
        at = float(info.scoring.calibration.probability(info.scoring.threshold))
        lines += [
            "",
            f"qprd's own threshold is a probability of {at:.3f}; WSInfer's class is "
            "the more probable one.",
        ]
    return "\n".join(lines) + "\n"


@torch.no_grad()
def traced_network(network: TwoLogits) -> torch.jit.ScriptModule:
    """A network as TorchScript, for any number of patches.

    Raises:
        QprdError: it does not give what the network gives.
    """
    first, other = random_patches(2, network.patch_px), random_patches(3, network.patch_px)
    with _without_deprecation(), warnings.catch_warnings():
        # The checks of a patch's size become constants, as they should. What might not generalize
        # is found out below.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        trace: Any = torch.jit.trace
        traced = trace(network, (first,), check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    if not torch.allclose(traced(other), network(other), rtol=0, atol=_TOLERANCE):
        raise QprdError(
            "As TorchScript this network gives other results, so it was not exported.",
            where="--format wsinfer",
            fix="Use --format onnx, or train with another --teacher.",
            exit_code=ExitCode.FAILED,
        )
    return traced


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """TorchScript is deprecated, and all that WSInfer reads."""
    with warnings.catch_warnings():
        message = r"`torch\.jit\.(trace|trace_method|save)` is deprecated"
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", message, category)
        yield
