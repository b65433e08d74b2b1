"""A bundle as one ONNX file, for onnxruntime, OpenCV, DJL and others.

Input `INPUT`: (N, 3, P, P), RGB, float32 0..1. Outputs: ``probability`` (N,), 0..1, where the
bundle is calibrated, and ``score`` (N,), raw. The metadata say what else is to be known.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from qprd.bundle.records import BundleInfo
from qprd.errors import ExitCode, QprdError
from qprd.export.scorer import ProbabilityAndScore, Score, random_patches

INPUT = "images"

#: Scores of the file may differ by this from those of the network it was made of.
_TOLERANCE = 1e-3


def require_onnx() -> None:
    """Find out before long work that the extra is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise QprdError(
            f"ONNX files need a package that is not installed: {error.name}.",
            where="--format onnx",
            fix='pip install "qprd[onnx]"',
        ) from error


@torch.no_grad()
def onnx_model(network: ProbabilityAndScore | Score, info: BundleInfo) -> bytes:
    """A network as an ONNX file, seen to give in onnxruntime what it gives here.

    Raises:
        QprdError: the extra is missing, or the network does not survive its translation.
    """
    require_onnx()
    import onnx

    program = torch.onnx.export(
        network,
        (random_patches(2, network.patch_px),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("patches")},),
        input_names=[INPUT],
        output_names=list(network.outputs),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    patches = f"patches of {info.network.patch_px} px at {info.network.mpp:g} um/px"
    model.doc_string = f"{info.name}: {patches}"
    onnx.helper.set_model_props(model, onnx_metadata(info))
    written: bytes = model.SerializeToString()
    require_same_results(written, network)
    return written


def onnx_metadata(info: BundleInfo) -> dict[str, str]:
    """What a program needs to know to use the file; values that are no text are JSON."""
    return {
        "qprd.bundle": info.name,
        "qprd.patch_px": json.dumps(info.network.patch_px),
        "qprd.mpp": json.dumps(info.network.mpp),
        "qprd.threshold": json.dumps(info.scoring.threshold),
        "qprd.classes": json.dumps(
            {label: list(names) for label, names in info.training.classes.items()}
        ),
        "qprd.version": info.versions.get("qprd", ""),
    }


@torch.no_grad()
def require_same_results(written: bytes, network: ProbabilityAndScore | Score) -> None:
    """Compare what onnxruntime makes of a file with what its network gives."""
    import onnxruntime

    images = random_patches(3, network.patch_px)
    expected = network(images)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    found = session.run(list(network.outputs), {INPUT: images.numpy()})
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    for ours, theirs in zip(expected, found, strict=True):
        if not np.allclose(ours.numpy(), theirs, rtol=0, atol=_TOLERANCE):
            raise QprdError(
                "As ONNX this network gives other results, so it was not exported.",
                where="--format onnx",
                fix="Use --format wsinfer, or train with another --teacher.",
                exit_code=ExitCode.FAILED,
            )
