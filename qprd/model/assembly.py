"""Models by their kind, untrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch

from qprd.model.discriminant import Discriminant
from qprd.model.frd import FRD, StandardizedFRD
from qprd.model.network import Network
from qprd.model.teacher import Teacher
from qprd.settings import ModelKind

MODELS: Final[Mapping[ModelKind, Callable[[Teacher], Network]]] = {
    model.kind: model for model in (FRD, Discriminant, StandardizedFRD)
}

_Model = TypeVar("_Model", bound=Network)


def build_network(model: Callable[[Teacher], _Model], teacher: Teacher, seed: int) -> _Model:
    """Build an untrained model; the same seed gives the same weights, whatever ran before.

    The global random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(teacher)
