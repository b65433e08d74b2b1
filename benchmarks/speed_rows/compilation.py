"""``qprd train --compile``: what a step gains, and after how many steps that has paid."""

from __future__ import annotations

import os
from collections.abc import Iterator

from speed_rows.row import Row, Setup
from speed_rows.training_step import config_of, images_of, steps_of, train

_EPOCHS = 3


def measure(setup: Setup) -> Iterator[Row]:
    """Nothing compiled before is used; the teacher runs in every step."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(setup.folder)
    config = config_of(setup.device)
    images = images_of(config)

    def spent(epochs: int, *, compiled: bool) -> float:
        chosen = config.model_copy(update={"epochs": epochs, "compile": compiled})
        return train(images, chosen, keep=False)[0]

    steps = _EPOCHS * steps_of(config)
    spent(1, compiled=False)
    plain = spent(_EPOCHS, compiled=False) / steps
    once = spent(1, compiled=True)
    compiled = (spent(1 + _EPOCHS, compiled=True) - spent(1, compiled=True)) / steps
    start = once - compiled * steps_of(config)
    gain = plain - compiled
    pays = f"pays after {start / gain:,.0f} steps" if gain > 0 else "does not pay"
    yield Row(
        "training step, --compile",
        "the same without",
        ">=",
        1.0,
        plain / compiled,
        f"{1000 * compiled:.0f} ms and {1000 * plain:.0f} ms, compiled in {start:.0f} s: {pays}; "
        f"{config.teacher}, {config.batch_size} patches of {config.patch_px} px",
    )
