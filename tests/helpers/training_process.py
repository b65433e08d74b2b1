"""One of the processes of a training, in 64 bits, as a program of its own.

``python -m tests.helpers.training_process FILE RECIPE N_TUMOR SIMILARITY LABELS``, also under
torchrun. The first process writes the weights to the file. In 64 bits what is left is what the
processes do differently: in 32, Adam makes a step of the rounding of a gradient that should be 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from qprd.device import make_fabric
from qprd.files.tensors import save_tensors
from qprd.given_settings import train_config
from qprd.model.assembly import build_network
from qprd.model.teacher import build_teacher
from qprd.progress import SilentProgress
from qprd.sampling.dataset import PatchDataset
from qprd.sampling.table import Patch, PatchTable
from qprd.training import recipes

EDGE, NORMAL = 32, 18


def main(file: str, recipe: str, n_tumor: str, similarity: str, labels: str) -> None:
    torch.set_num_threads(1)
    recipes.teacher_cache_for = lambda *_: None  # which keeps maps in 32 bits
    config = train_config(
        {
            "recipe": recipe,
            "teacher": "efficientnet_lite0",
            "patch_px": EDGE,
            "epochs": 2,
            "batch_size": 7,
            "augment": True,
            "similarity": similarity,
            "labels": labels,
        }
    )
    rng = np.random.default_rng(0)
    count = NORMAL + int(n_tumor)
    tumor = np.arange(count) >= NORMAL
    images = rng.integers(0, 255, (count, 3, EDGE, EDGE), dtype=np.uint8)
    masks = rng.integers(-1, 2, (count, EDGE // 4, EDGE // 4), dtype=np.int8)
    rows = tuple(
        Patch("slide", "slide", 0, 0, float(EDGE), 0.5, "tumor" if y else "normal", "train")
        for y in tumor
    )
    dataset = PatchDataset(
        PatchTable(rows),
        images,
        patch_px=EDGE,
        masks=masks if labels == "mask" else None,
        augment=True,
    )
    fabric = make_fabric("cpu", "32", 1)
    fabric.launch()
    teacher = build_teacher("efficientnet_lite0", pretrained=False)
    # Other processes start from other weights than the first, and get its own.
    seed = config.seed + fabric.global_rank
    model = build_network(recipes.model_of(config.recipe, int(n_tumor)), teacher, seed).double()
    recipes.train_model(
        model,
        dataset,
        images,
        tumor,
        val=None,
        config=config,
        fabric=fabric,
        progress=SilentProgress(),
    )
    if fabric.is_global_zero:
        save_tensors(model.trainable_state(), Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
