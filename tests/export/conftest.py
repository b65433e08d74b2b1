"""Two small models, and patches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qprd.model.network import Network
from tests.helpers.small_models import PATCH_PX, random_model


@pytest.fixture(scope="session")
def discriminant() -> Network:
    """A model of ``--recipe best``."""
    return random_model("discriminant")


@pytest.fixture(scope="session")
def plain() -> Network:
    """A model of ``--recipe paper``."""
    return random_model("frd")


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Patches as they are cut out of slides, (5, 3, P, P)."""
    random = np.random.default_rng(0)
    brightness = np.linspace(40, 250, 5).reshape(5, 1, 1, 1)
    noise = random.normal(0, 40, (5, 3, PATCH_PX, PATCH_PX))
    return np.clip(brightness + noise, 0, 255).astype(np.uint8)
