"""Comparison of what was stored with what was meant, before new data replace the old."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qprd.errors import ExitCode, QprdError
from qprd.predictions import PredictedTile, Predictions
from qprd.qupath.precision import same_outline, storing_tolerance


@dataclass(frozen=True)
class TileTable:
    """Many tiles in columns, for one object each would take longer than QuPath itself.

    Attributes:
        places: (n, 4): x, y, width and height in level-0 pixels.
        names: Of the measurements that any of them has.
        values: (n, names), NaN where a tile has none.
    """

    ids: Sequence[str]
    places: NDArray[np.float64]
    names: Sequence[str]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, tiles: Sequence[PredictedTile]) -> TileTable:
        """The table of these tiles."""
        places = np.empty((len(tiles), 4))
        for column, key in enumerate(("x", "y", "width", "height")):
            places[:, column] = np.fromiter((getattr(t, key) for t in tiles), float, len(tiles))
        names, values = measurement_table([tile.measurements for tile in tiles])
        return cls([tile.id for tile in tiles], places, names, values)

    def tiles(self) -> tuple[PredictedTile, ...]:
        """The tiles of this table."""
        return tuple(
            PredictedTile(
                tile_id,
                x,
                y,
                width,
                height,
                {n: v for n, v in zip(self.names, values, strict=True) if not math.isnan(v)},
            )
            for tile_id, (x, y, width, height), values in zip(
                self.ids, self.places.tolist(), self.values.tolist(), strict=True
            )
        )


def compare(
    meant: Predictions,
    stored: Predictions,
    stored_tiles: TileTable,
    where: Path,
) -> None:
    """Raise unless the annotations and tiles that were stored are those that were meant.

    Coordinates may differ by 0.01 px, or by what QuPath's single precision costs; measurements are
    compared in single precision.

    Raises:
        QprdError: there is a difference; it says which.
    """
    differ = partial(stored_otherwise, where=where)
    _compare_tiles(TileTable.of(meant.tiles), stored_tiles, differ)
    for kind, wanted, found in (
        ("contours", meant.contours, stored.contours),
        ("regions to review", meant.review, stored.review),
    ):
        if {item.id for item in wanted} != {item.id for item in found} or len(wanted) != len(found):
            raise differ(f"{len(wanted)} {kind} were meant, {len(found)} are stored, or other ids")
    by_id = {region.id: region for region in stored.annotations}
    for region in meant.annotations:
        found_region = by_id[region.id]
        if _single(region.measurements) != _single(found_region.measurements):
            raise differ(f"the measurements of {region.id}")
        if region.name != found_region.name:
            raise differ(f"the name of {region.id}")
        if not same_outline(region.polygon, found_region.polygon):
            raise differ(f"the outline of {region.id}")
    if meant.contours and meant.contour_class != stored.contour_class:
        raise differ("the class of the contours")


def _compare_tiles(meant: TileTable, stored: TileTable, differ: Callable[[str], QprdError]) -> None:
    rows = {tile_id: row for row, tile_id in enumerate(stored.ids)}
    count = len(meant.ids)
    if len(stored.ids) != count or rows.keys() != set(meant.ids):
        raise differ(f"{count} tiles were meant, {len(stored.ids)} are stored, or other ids")
    order = np.fromiter((rows[tile_id] for tile_id in meant.ids), np.int64, count)
    if set(meant.names) != set(stored.names):
        raise differ("the names of the tiles' measurements")
    columns = [list(stored.names).index(name) for name in meant.names]
    single, found = (v.astype(np.float32) for v in (meant.values, stored.values[order][:, columns]))
    same = np.isclose(single, found, rtol=0, atol=0, equal_nan=True).all(axis=1)
    if not same.all():
        raise differ(f"the measurements of {meant.ids[int(np.argmin(same))]}")
    distances = np.abs(meant.places - stored.places[order])
    if np.any(distances > storing_tolerance(meant.places)):
        raise differ("the places of the tiles")


def refuse_changes(changed: Sequence[str], where: Path) -> None:
    """Raise if objects that are not to change did, by their ids."""
    if changed:
        raise stored_otherwise(
            f"{len(changed)} objects of others changed, {changed[0]} first", where
        )


def stored_otherwise(what: str, where: Path) -> QprdError:
    """The error for new data that are not what was meant, and were discarded."""
    return QprdError(
        f"What was stored differs from what was meant: {what}. The project is as it was.",
        where=str(where),
        fix="Run it again; if it happens once more, please report it.",
        exit_code=ExitCode.FAILED,
    )


def measurement_table(
    measurements: Sequence[Mapping[str, float]],
) -> tuple[list[str], NDArray[np.float64]]:
    """Measurements of many objects as a table.

    Returns:
        All names there are, and the values (n, names), NaN where an object has none.
    """
    names = list(dict.fromkeys(name for item in measurements for name in item))
    values = np.empty((len(measurements), len(names)))
    for column, name in enumerate(names):
        found = (item.get(name, math.nan) for item in measurements)
        values[:, column] = np.fromiter(found, float, len(measurements))
    return names, values


def _single(measurements: Mapping[str, float]) -> dict[str, float]:
    return {name: float(np.float32(value)) for name, value in measurements.items()}
