"""The arrays of a result, ``score_map.npz``: raw scores, their grid, and where tissue was found.

What loads them raises `QprdError` if there are none, or if they are damaged.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from qprd.errors import QprdError
from qprd.predictions import ScoreMap
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask

SCORE_MAP = "score_map.npz"

#: Room for the largest map that is scored, even in 64 bits.
_MAX_MAP_BYTES = 2**29


def save_arrays(folder: Path, score_map: ScoreMap, tissue: TissueMask | None) -> None:
    """Write the arrays into the folder of an entry.

    Raises:
        OSError: They cannot be written.
    """
    found: dict[str, Any] = {}
    if tissue is not None and tissue.surface is not None:
        found = {"surface": tissue.surface, "downsample": np.array(tissue.downsample)}
    np.savez_compressed(
        folder / SCORE_MAP,
        scores=score_map.scores,
        grid=np.array([score_map.x, score_map.y, score_map.cell_px, score_map.mpp]),
        **found,
    )


def load_score_map(folder: Path) -> ScoreMap:
    """Read the score map of one entry."""
    with _arrays(folder) as archive:
        scores = archive["scores"].astype(np.float32)
        x, y, cell_px, mpp = (float(value) for value in archive["grid"])
        if scores.ndim != 2 or not np.isfinite([x, y]).all() or not (cell_px > 0 and mpp > 0):
            raise ValueError("no score map")
    return ScoreMap(scores, x, y, cell_px, mpp)


def load_tissue(folder: Path) -> TissueMask | None:
    """Read where the prediction of one entry found tissue; None in results of an earlier qprd."""
    with _arrays(folder) as archive:
        if "surface" not in archive:
            return None
        surface, downsample = archive["surface"], float(archive["downsample"])
        if surface.ndim != 2 or surface.dtype != np.uint8 or not downsample >= 1:
            raise ValueError("no surface")
    return TissueMask(surface == Surface.TISSUE, downsample, surface=surface)


@contextmanager
def _arrays(folder: Path) -> Iterator[NpzFile]:
    """Open the arrays of one entry; any error in the block means that they are damaged."""
    try:
        with np.load(folder / SCORE_MAP, allow_pickle=False) as archive:
            _refuse_larger_than_stored(archive.zip)
            yield archive
    except OSError as error:
        raise missing(folder, error) from error
    except Exception as error:
        # Headers of arrays are Python expressions: a damaged one can raise anything.
        raise damaged(folder / SCORE_MAP) from error


def _refuse_larger_than_stored(archive: zipfile.ZipFile) -> None:
    """Refuse arrays that claim to be larger than what is stored, before memory is reserved.

    Raises:
        ValueError: one does, or is larger than any score map.
    """
    for member in archive.infolist():
        if member.file_size > _MAX_MAP_BYTES:
            raise ValueError(f"{member.filename} is too large")
        with archive.open(member) as stream:
            read_header = (
                np.lib.format.read_array_header_1_0
                if np.lib.format.read_magic(stream) == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} is cut off")


def missing(folder: Path, error: OSError | None = None) -> QprdError:
    """The error for a result that is not there."""
    reason = "" if error is None else f": {error.strerror}"
    return QprdError(
        f"There are no results of this slide to read{reason}.",
        where=str(folder),
        fix="Run qprd predict first.",
    )


def damaged(file: Path) -> QprdError:
    """The error for a file of a result that cannot be what qprd wrote."""
    return QprdError("This result file is damaged.", where=str(file), fix="Run qprd predict again.")
