"""A vision transformer as a teacher, against its bare forward pass."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from qprd.device import make_fabric
from qprd.model.inference import for_inference
from qprd.model.network import Network
from speed_rows.network import make_model
from speed_rows.row import Row, RowStart, Setup, seconds

NETWORK = "vit_small_patch14_dinov2"
_BATCH, _PATCH_PX, _TOKENS_PX = 8, 128, 140


def measure(setup: Setup) -> Iterator[Row]:
    """Scores of a batch of patches, in the two orientations that a score is the mean of."""
    row: RowStart = (f"network in eval, {NETWORK}", "timm's bare forward pass", ">=", 0.9)
    if importlib.util.find_spec("timm") is None:
        yield Row(*row, None, "timm is not installed")
        return
    import timm  # noqa: PLC0415  (an extra that may be missing)

    device = make_fabric(setup.device, "32").device
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(_BATCH, 3, _PATCH_PX, _PATCH_PX, generator=generator).to(device)
    ours = for_inference(make_model(f"timm:{NETWORK}", "best", device))
    theirs = timm.create_model(NETWORK, num_classes=0, img_size=_TOKENS_PX).eval().to(device)
    both = functional.interpolate(torch.cat([patches, patches.mT]), (_TOKENS_PX, _TOKENS_PX))
    slow, fast = seconds(partial(_features, theirs, both), partial(_scores, ours, patches))
    yield Row(
        *row,
        slow / fast,
        f"{_BATCH / fast:.2f} patches of {_PATCH_PX} px/s in both orientations, 32 bit; blocks "
        f"after the last map ({ours.teacher.layers[-1]}) are not run",
    )


@torch.inference_mode()
def _features(model: Any, images: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(model(images)).cpu()


@torch.inference_mode()
def _scores(model: Network, patches: torch.Tensor) -> torch.Tensor:
    return model.score_maps(patches).mean((1, 2)).cpu()
