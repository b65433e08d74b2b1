"""Plot of a training: loss and validation figures by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.review.figures import BLUE, GREEN, GRID, ORANGE, QUIET, figure_png, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_plot(
    history: Sequence[Mapping[str, float | None]],
    path: Path,
    *,
    best_epoch: int | None = None,
    title: str = "Training",
) -> Path:
    """Save `training_figure` as a PNG file."""
    path.write_bytes(figure_png(training_figure(history, best_epoch=best_epoch, title=title)))
    return path


def training_figure(
    history: Sequence[Mapping[str, float | None]],
    *,
    best_epoch: int | None = None,
    title: str = "Training",
) -> Figure:
    """Draw loss (above) and validation accuracy and AUROC (below) over the epochs.

    Args:
        history: One row per epoch: ``epoch``, ``loss``, and with a validation ``val_accuracy`` and
            ``val_auroc``; values that are missing, None or NaN are not drawn.
        best_epoch: The epoch to mark as the one that was kept; None for none.
        title: Title of the plot.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure((7.0, 5.2))
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold", fontsize=11.5, parse_math=False)
    loss_axes, validation_axes = figure.subplots(2, 1, sharex=True)
    for axes, key, label, color, marker in (
        (loss_axes, "loss", "training loss", BLUE, "o"),
        (validation_axes, "val_accuracy", "validation accuracy", ORANGE, "s"),
        (validation_axes, "val_auroc", "validation AUROC", GREEN, "^"),
    ):
        points = [(row["epoch"], value) for row in history if _is_number(value := row.get(key))]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=color, marker=marker, markersize=4, label=label
            )
    for axes, label in ((loss_axes, "loss"), (validation_axes, "validation")):
        axes.set_ylabel(label)
        axes.grid(visible=True, color=GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if best_epoch is not None:
            axes.axvline(
                best_epoch,
                color=QUIET,
                linestyle="--",
                linewidth=1,
                label=f"best epoch: {best_epoch}",
            )
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8.5, frameon=False)
    if any(_is_number(row.get(key)) for row in history for key in ("val_accuracy", "val_auroc")):
        low, high = validation_axes.get_ylim()
        validation_axes.set_ylim(min(low, 0.5), max(high, 1.02))
    else:
        validation_axes.text(
            0.5, 0.5, "no validation", transform=validation_axes.transAxes, ha="center", color=QUIET
        )
        validation_axes.set_yticks([])
    epochs = [row["epoch"] or 0 for row in history] or [1]
    validation_axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    validation_axes.set_xlabel("epoch")
    validation_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
