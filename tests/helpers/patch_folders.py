"""Small patch folders in which tumor is easily seen: bluer, with dark round nuclei."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def draw_patch(rng: np.random.Generator, tumor: bool, edge_px: int = 32) -> NDArray[np.uint8]:
    """An (edge, edge, 3) patch: pink and smooth if normal, purple with dots if tumor."""
    base = np.array([170, 110, 190] if tumor else [230, 170, 200], float)
    pixels = base + rng.normal(0, 6, 3) + rng.normal(0, 8, (edge_px, edge_px, 3))
    if tumor:
        rows, columns = np.mgrid[:edge_px, :edge_px]
        for y, x in rng.uniform(0, edge_px, (6, 2)):
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < 9] = (60, 30, 110)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_folder(
    folder: Path,
    normal: int,
    tumor: int,
    *,
    splits: Sequence[str] | None = None,
    edge_px: int = 32,
    ending: str = "png",
) -> Path:
    """Write ``labels.csv`` and ``images/``; ids are n000, n001, ..., t000, ..."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    names = [f"n{i:03d}" for i in range(normal)] + [f"t{i:03d}" for i in range(tumor)]
    for name in names:
        pixels = draw_patch(rng, name.startswith("t"), edge_px)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.{ending}")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label"] if splits is None else ["id", "label", "split"])
        for place, name in enumerate(names):
            row = [name, int(name.startswith("t"))]
            writer.writerow(row if splits is None else [*row, splits[place]])
    return folder
