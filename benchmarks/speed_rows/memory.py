"""The largest slide in little memory, and its tissue mask."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask
from speed_rows import transformer
from speed_rows.network import NETWORKS
from speed_rows.row import Row, Setup, seconds
from speed_rows.slides import write_slide
from speed_rows.whole_prediction import prepare, spent

_SIZE = (100_000, 80_000)
_ISLANDS = [
    (4_000, 3_000, 1_000),
    (96_000, 2_000, 1_000),
    (50_000, 40_000, 1_500),
    (3_000, 76_000, 1_000),
]
_MPP = 0.25
_LIMIT_GB = 3.0
_LIMIT_S = 10.0


def measure(setup: Setup) -> Iterator[Row]:
    """Memory is that of the whole process, libraries included."""
    slide = setup.folder / "sparse.tif"
    write_slide(slide, _SIZE, _ISLANDS, _MPP)
    width, height = _SIZE
    networks = NETWORKS
    if importlib.util.find_spec("timm") is not None:
        networks = (*NETWORKS, (f"timm:{transformer.NETWORK}", "best"))
    for teacher, recipe in networks:
        name = teacher.removeprefix("timm:")
        prepare(setup.folder / name, slide, _MPP, _MPP, teacher=teacher, recipe=recipe)
        found = spent(setup.folder / name, setup.device)
        yield Row(
            f"memory for {width:,} x {height:,} px, {name}",
            f"{_LIMIT_GB:g} GB",
            "<=",
            1.0,
            found.peak_bytes / 1e9 / _LIMIT_GB,
            f"peak of {found.peak_bytes / 1e9:.2f} GB, the libraries' own included; "
            f"{found.cells:,} cells, {found.tiles:,} of them tissue; {found.seconds:.0f} s",
        )
    yield _tissue_mask(slide)


def _tissue_mask(file: Path) -> Row:
    width, height = _SIZE
    with Slide(file) as slide:
        (spent_s,) = seconds(lambda: tissue_mask(slide), repeats=2)
    return Row(
        f"tissue mask of {width:,} x {height:,} px",
        f"{_LIMIT_S:g} s",
        "<=",
        1.0,
        spent_s / _LIMIT_S,
        f"{spent_s:.1f} s; read from an overview level",
    )
