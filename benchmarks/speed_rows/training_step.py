"""A training step of a student, against a plain loop with the same network and patches.

The student is that of ``--recipe best`` without tumor patches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from qprd.device import make_fabric
from qprd.given_settings import train_config
from qprd.model.assembly import build_network
from qprd.model.frd import StandardizedFRD
from qprd.model.inference import faster_teacher
from qprd.model.lite0_backbone import EFFICIENTNET_LITE0
from qprd.model.loss import SimilarityLoss, build_loss
from qprd.model.teacher import build_teacher
from qprd.progress import SilentProgress
from qprd.sampling.dataset import PatchDataset
from qprd.sampling.table import Patch, PatchTable
from qprd.settings import TrainConfig
from qprd.training.loop import fit
from qprd.training.recipes import teacher_cache_for
from speed_rows.row import Row, Setup

_NORMAL = 96
_EPOCHS = 2
_EPOCHS_WITH_CACHE = 6
_TURNS = 2


def config_of(device: str) -> TrainConfig:
    """A short training without augmentation."""
    return train_config(
        {
            "teacher": EFFICIENTNET_LITE0,
            "normal": _NORMAL,
            "tumor": 0,
            "epochs": _EPOCHS,
            "augment": False,
            "device": device,
            "precision": "32",
        }
    )


def images_of(config: TrainConfig) -> NDArray[np.uint8]:
    """Patches of noise."""
    shape = (_NORMAL, 3, config.patch_px, config.patch_px)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def steps_of(config: TrainConfig) -> int:
    """Steps of an epoch."""
    return -(-_NORMAL // config.batch_size)


def measure(setup: Setup) -> Iterator[Row]:
    """All ways see the same patches in the same order, none of them a validation."""
    config = config_of(setup.device)
    images = images_of(config)
    plain = fresh = kept = float("inf")
    waited = 0.0
    for _ in range(_TURNS):
        plain = min(plain, _plain(images, config) / _EPOCHS)
        spent, waiting = train(images, config, keep=False)
        fresh, waited = min((fresh, waited), (spent / _EPOCHS, waiting / _EPOCHS))
        longer = config.model_copy(update={"epochs": _EPOCHS_WITH_CACHE})
        kept = min(kept, train(images, longer, keep=True)[0] / _EPOCHS_WITH_CACHE)
    to_ms = 1000 / steps_of(config)
    against = "plain loop, same network and patches"
    yield Row(
        "training step",
        against,
        ">=",
        1.2,
        plain / fresh,
        f"{to_ms * fresh:.0f} ms and {to_ms * plain:.0f} ms; student on {config.teacher}, "
        f"{config.batch_size} patches of {config.patch_px} px, 32 bit",
    )
    yield Row(
        "training step, teacher's maps kept",
        against,
        ">=",
        1.2,
        plain / kept,
        f"{to_ms * kept:.0f} ms; mean of {_EPOCHS_WITH_CACHE} epochs without augmentation, of "
        "which the first computes them",
    )
    yield Row(
        "waiting for patches",
        "time of the training",
        "<=",
        0.05,
        waited / fresh,
        f"{to_ms * waited:.2f} ms a step",
    )


def _parts(config: TrainConfig) -> tuple[StandardizedFRD, SimilarityLoss, Fabric]:
    loss = build_loss(config, n_tumor=0, n_normal=_NORMAL)
    fabric = make_fabric(config.device, config.precision)
    model = build_network(StandardizedFRD, build_teacher(config.teacher), config.seed)
    return model.to(fabric.device), loss, fabric


def train(images: NDArray[np.uint8], config: TrainConfig, *, keep: bool) -> tuple[float, float]:
    """Seconds of a training as `qprd train` does it, and those of them spent waiting."""
    model, loss, fabric = _parts(config)
    model.teacher = faster_teacher(model.teacher)
    rows = tuple(
        Patch("", "", 0, 0, config.patch_px, config.mpp, "normal", "train") for _ in images
    )
    dataset = PatchDataset(PatchTable(rows), images, patch_px=config.patch_px)
    started = time.perf_counter()
    cache = teacher_cache_for(model, dataset, config, fabric, None) if keep else None
    outcome = fit(
        model,
        dataset,
        loss,
        None,
        config,
        fabric=fabric,
        progress=SilentProgress(),
        annealed=True,
        cache=cache,
    )
    return time.perf_counter() - started, outcome.waited_s


def _plain(images: NDArray[np.uint8], config: TrainConfig) -> float:
    """Seconds of the loop that PyTorch's tutorials have."""
    model, loss, fabric = _parts(config)
    device = fabric.device
    dataset = TensorDataset(torch.from_numpy(images), torch.ones(len(images)))
    batches = DataLoader(dataset, batch_size=config.batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.trainable_parameters(), lr=config.lr, betas=(0.5, 0.999))
    started = time.perf_counter()
    for _ in range(config.epochs):
        model.train()
        total = 0.0
        for x, y in batches:
            teacher_maps, student_maps = model(x.to(device))
            value = loss(teacher_maps, student_maps, y.to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.item()
    return time.perf_counter() - started
