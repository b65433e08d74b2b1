from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qprd.review.training_plot import training_figure, training_plot

HISTORY: list[dict[str, float | None]] = [
    {"epoch": 1, "loss": 2.0, "val_accuracy": 0.6, "val_auroc": 0.7},
    {"epoch": 2, "loss": 1.0, "val_accuracy": 0.9, "val_auroc": None},
    {"epoch": 3, "loss": float("nan"), "val_accuracy": 0.8, "val_auroc": 0.95},
]


def points(label: str) -> list[tuple[float, float]]:
    figure = training_figure(HISTORY)
    [line] = [line for axes in figure.axes for line in axes.lines if line.get_label() == label]
    return [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]


def test_every_figure_there_is_gets_drawn_and_no_other() -> None:
    assert points("training loss") == [(1, 2.0), (2, 1.0)]
    assert points("validation accuracy") == [(1, 0.6), (2, 0.9), (3, 0.8)]
    assert points("validation AUROC") == [(1, 0.7), (3, 0.95)]


def test_best_epoch_is_marked_in_both_panels() -> None:
    for axes in training_figure(HISTORY, best_epoch=2).axes:
        [mark] = [line for line in axes.lines if line.get_label() == "best epoch: 2"]
        assert np.asarray(mark.get_xdata()).tolist() == [2, 2]


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "loss": 2.0}], HISTORY])
def test_png_is_saved_whatever_is_missing(
    history: list[dict[str, float | None]], tmp_path: Path
) -> None:
    path = training_plot(history, tmp_path / "history.png", title="$bundle_{")
    assert path == tmp_path / "history.png"
    assert Image.open(path).format == "PNG"


def test_missing_validation_is_said() -> None:
    figure = training_figure([{"epoch": 1, "loss": 2.0, "val_accuracy": None}])
    assert "no validation" in [text.get_text() for text in figure.axes[1].texts]
    assert not training_figure(HISTORY).axes[1].texts
