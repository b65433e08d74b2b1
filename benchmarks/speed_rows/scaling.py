"""Four times the slide: at most four times the time, and memory for a larger map only."""

from __future__ import annotations

from collections.abc import Iterator

from speed_rows.row import Row, Setup
from speed_rows.slides import write_slide
from speed_rows.whole_prediction import prepare, spent

#: In pixels of the slide, half as large as the model's: more than the reader's cache holds, and
#: tissue that is cut into fields of the same size on both slides.
_EDGE, _GLASS, _MPP = 5_376, 1_024, 0.25
_MODEL_MPP = 0.5
#: What may differ beside the map: the map itself, probabilities, tiles and pictures, per cell.
_BYTES_PER_CELL = 8_192


def measure(setup: Setup) -> Iterator[Row]:
    """All of a prediction but its start."""
    found = []
    for times in (1, 2):
        edge = times * _EDGE
        slide = setup.folder / f"{edge}.tif"
        write_slide(slide, (edge + 2 * _GLASS,) * 2, [(_GLASS, _GLASS, edge)], _MPP)
        prepare(setup.folder / str(times), slide, _MPP, _MODEL_MPP)
        found.append(spent(setup.folder / str(times), setup.device, tidy=True))
    small, large = found
    yield Row(
        "scaling: time",
        "a slide of a quarter of the tissue",
        "<=",
        4.2,
        large.seconds / small.seconds,
        f"{large.seconds:.1f} s for {large.tiles:,} tiles, {small.seconds:.1f} s for "
        f"{small.tiles:,}",
    )
    grown = large.peak_bytes - small.peak_bytes
    allowed = (large.cells - small.cells) * _BYTES_PER_CELL
    yield Row(
        "scaling: memory",
        "the larger map and its tiles",
        "<=",
        1.0,
        grown / allowed,
        f"{grown / 2**20:+.0f} MiB, peaks {large.peak_bytes / 2**20:.0f} and "
        f"{small.peak_bytes / 2**20:.0f} MiB; {_BYTES_PER_CELL} bytes a cell allowed",
    )
