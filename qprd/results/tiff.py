"""The score map as an image: a tiled OME-TIFF pyramid for QuPath, napari, Fiji and others."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qprd.predictions import ScoreMap

#: Edge of a tile of the file. Levels are halved until one tile holds them.
TILE = 256

#: Namespace of the annotation that says where the map lies on the slide.
GRID_NAMESPACE = "qprd/grid"


def write_score_tiff(
    path: Path, score_map: ScoreMap, probabilities: NDArray[np.float64] | None, *, image: str
) -> None:
    """Write a score map as one float32 channel, a pixel a cell.

    With a calibration the probabilities are written, 0..1, a range that viewers know how to color;
    without one the raw scores. Cells that were not scored are NaN on every level, as 0 would mean
    "surely no tumor". A pixel of a smaller level is the mean of those of its four pixels that are
    not NaN. The same map gives the same bytes.

    The file states the physical size of a cell and, as the position of the plane, the distance of
    the map's upper left corner from that of the slide in micrometers. The same in level-0 pixels
    (``x_px``, ``y_px``, ``cell_px``) is in a map annotation of namespace `GRID_NAMESPACE`.

    Args:
        path: The file to write; replaced if it exists.
        score_map: The raw scores and their grid.
        probabilities: (rows, columns), NaN where the scores are; None without a calibration.
        image: Name of the slide.

    Raises:
        OSError: The file cannot be written.
    """
    import tifffile

    channel = "raw score" if probabilities is None else "probability"
    level = (score_map.scores if probabilities is None else probabilities).astype(np.float32)
    cell_um = score_map.cell_px * score_map.mpp
    smaller = 0
    while max(level.shape) > TILE << smaller:
        smaller += 1
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for index in range(smaller + 1):
            per_cm = 10_000 / (cell_um * 2**index)
            tiff.write(
                level,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software=False,
                subifds=smaller if index == 0 else 0,
                subfiletype=0 if index == 0 else 1,
                metadata=_metadata(score_map, level, channel, image) if index == 0 else None,
            )
            level = _half(level)


def _metadata(
    score_map: ScoreMap, level: NDArray[np.float32], channel: str, image: str
) -> dict[str, object]:
    """Metadata from which tifffile makes the OME-XML."""
    digest = hashlib.sha256(level.tobytes())
    grid = {
        "x_px": score_map.x,
        "y_px": score_map.y,
        "cell_px": score_map.cell_px,
        "mpp": score_map.mpp,
    }
    digest.update(repr((level.shape, grid, channel, image)).encode("utf-8", "surrogatepass"))
    # A slide's name may hold characters that XML cannot.
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in image)
    cell_um = score_map.cell_px * score_map.mpp
    return {
        "axes": "YX",
        "UUID": str(uuid.UUID(bytes=digest.digest()[:16], version=5)),
        "Creator": "qprd",
        "Name": f"{name}: {channel} of tumor",
        "Description": f"{channel} of tumor, NaN where nothing was scored",
        "PhysicalSizeX": cell_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": cell_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": channel},
        "Plane": {
            "PositionX": score_map.x * score_map.mpp,
            "PositionXUnit": "µm",
            "PositionY": score_map.y * score_map.mpp,
            "PositionYUnit": "µm",
        },
        "MapAnnotation": {
            "Namespace": GRID_NAMESPACE,
            **{key: repr(value) for key, value in grid.items()},
        },
    }


def _half(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of 2 x 2 pixels, ignoring NaN; an odd last row or column is averaged alone."""
    rows, columns = level.shape
    even = np.pad(level, ((0, rows % 2), (0, columns % 2)), constant_values=np.nan)
    blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        # In 64 bits, as raw scores may be as large as float32 goes.
        mean = np.nanmean(blocks, axis=(1, 3), dtype=np.float64)
    return np.asarray(mean, np.float32)
