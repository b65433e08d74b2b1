"""A student as it learns: its optimizer, its rate, and the steps of an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim.lr_scheduler import OneCycleLR

from qprd.errors import ExitCode, QprdError
from qprd.model.frd import FRD
from qprd.model.loss import Loss
from qprd.progress import Task
from qprd.sampling.dataset import PatchBatch
from qprd.settings import TrainConfig
from qprd.training.teacher_cache import TeacherCache

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import Precision

#: Share of the steps over which an annealed rate rises.
_WARM_UP = 0.1
#: Devices on which Adam updates all weights in one pass.
_FUSED = ("cpu", "cuda")


@dataclass(frozen=True)
class Learner:
    """The parts that a training step needs, set up on its device.

    Attributes:
        module: The network as Fabric runs it.
        adam: The optimizer, whose state is saved.
        optimizer: The same as Fabric steps it.
        schedule: Of the rate, if it is annealed.
        cache: Of the teacher's maps.
        precision: Scales the loss where 16 bits need it.
    """

    module: nn.Module
    adam: torch.optim.Optimizer
    optimizer: torch.optim.Optimizer
    schedule: OneCycleLR | None
    cache: TeacherCache | None
    precision: Precision


def build_learner(
    model: FRD,
    config: TrainConfig,
    fabric: Fabric,
    cache: TeacherCache | None,
    annealed_steps: int | None,
) -> Learner:
    """Set up the training of a model; the rate is annealed over so many steps, if any are given.

    It is then trained as `qprd.training.loop.fit` says.
    """
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        model.trainable_parameters(),
        lr=config.lr,
        betas=(0.5, 0.999),
        fused=fabric.device.type in _FUSED,
    )
    network = cast("nn.Module", torch.compile(model)) if config.compile else model
    module, wrapped = fabric.setup(network, optimizer)
    schedule = None
    if annealed_steps is not None:
        schedule = OneCycleLR(
            optimizer,
            config.lr,
            total_steps=annealed_steps,
            # PyTorch divides by zero where the rate rises for one step.
            pct_start=_WARM_UP if annealed_steps * _WARM_UP != 1 else 2 * _WARM_UP,
            cycle_momentum=False,
        )
    return Learner(module, optimizer, wrapped, schedule, cache, fabric.strategy.precision)


def learn_epoch(
    batches: Iterable[PatchBatch],
    loss: Loss,
    learner: Learner,
    fabric: Fabric,
    task: Task,
) -> float:
    """Learn from every batch once, and return the mean loss; wait for the device at the end."""
    learner.module.train()
    losses: list[torch.Tensor] = []
    for batch in batches:
        known = None
        if learner.cache is not None:
            known = learner.cache.maps(batch.images, batch.patches, batch.symmetries)
        try:
            teacher_maps, student_maps = learner.module(batch.images, known)
        except TorchDynamoException as error:
            raise QprdError(
                f"PyTorch cannot compile the network: {str(error).splitlines()[0]}",
                where="--compile",
                fix="Train without it, or install a C++ compiler.",
                exit_code=ExitCode.FAILED,
            ) from error
        value = loss(teacher_maps, student_maps, batch.target)
        learner.optimizer.zero_grad(set_to_none=True)
        fabric.backward(value)
        learner.optimizer.step()
        if learner.schedule is not None:
            learner.schedule.step()
        losses.append(value.detach())
        task.advance()
    mean = fabric.all_reduce(torch.stack(losses).mean(), reduce_op="mean")
    return float(cast("Tensor", mean))
