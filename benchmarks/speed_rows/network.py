"""The network as predictions run it, against its plain modules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from qprd.device import has_bf16_units, make_fabric
from qprd.model.assembly import build_network
from qprd.model.inference import for_inference
from qprd.model.network import Network
from qprd.model.teacher import build_teacher
from qprd.settings import Recipe
from qprd.training.recipes import model_of
from speed_rows.row import Row, RowStart, Setup, seconds

_BATCH, _PATCH_PX = 4, 256
NETWORKS: tuple[tuple[str, Recipe], ...] = (
    ("wide_resnet50_2", "paper"),
    ("efficientnet_lite0", "best"),
)


def measure(setup: Setup) -> Iterator[Row]:
    """Scores of a batch of patches; in 32 bits, and in bf16 against that."""
    half = make_fabric(setup.device, "bf16")
    fabric = make_fabric(setup.device, "32")
    patches = torch.rand(
        _BATCH, 3, _PATCH_PX, _PATCH_PX, generator=torch.Generator().manual_seed(0)
    ).to(fabric.device)
    for teacher, recipe in NETWORKS:
        plain = make_model(teacher, recipe, fabric.device)
        folded = for_inference(plain)
        ways = [partial(_scores, model, patches) for model in (plain, folded)]
        slow, fast = seconds(*ways)
        yield Row(
            f"network in eval, {teacher}",
            "the plain modules",
            ">=",
            1.2,
            slow / fast,
            f"{_BATCH / fast:.2f} and {_BATCH / slow:.2f} patches of {_PATCH_PX} px/s, 32 bit",
        )
        row: RowStart = (f"network in bf16, {teacher}", "the same in 32 bits", ">=", 1.0)
        if not has_bf16_units(half.device.type):
            yield Row(*row, None, "no bf16 units here, so it is not used")
            continue
        with half.autocast():
            (halved,) = seconds(ways[1])
        yield Row(*row, fast / halved, f"{_BATCH / halved:.2f} patches of {_PATCH_PX} px/s")


def make_model(teacher: str, recipe: Recipe, device: torch.device) -> Network:
    """An untrained network: how long it takes does not depend on its weights."""
    model = build_network(model_of(recipe, n_tumor=1), build_teacher(teacher, pretrained=False), 0)
    return model.eval().to(device)


@torch.inference_mode()
def _scores(model: Network, patches: torch.Tensor) -> torch.Tensor:
    scores = [scale.mean((1, 2)) for scale in model.location_scores(patches)]
    return torch.stack(scores).sum(0).cpu()
