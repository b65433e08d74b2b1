"""Whether QuPath stored what was meant: the check between writing new data and taking them over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qprd.errors import ExitCode, QprdError
from qprd.qupath.precision import same_outline, storing_tolerance
from qprd.results import Predictions


def compare(
    meant: Predictions, stored: Predictions, changed_others: Sequence[str], where: Path
) -> None:
    """Raise unless QuPath stored what was meant and left all other objects as they were.

    Coordinates may differ by 0.01 px, or by what QuPath's single precision costs; measurements are
    compared in single precision.

    Raises:
        QprdError: there is a difference; it says which.
    """

    def differ(what: str) -> QprdError:
        return stored_otherwise(what, where)

    refuse_changes(changed_others, where)
    for kind, wanted, found in (
        ("tiles", meant.tiles, stored.tiles),
        ("contours", meant.contours, stored.contours),
        ("regions to review", meant.review, stored.review),
    ):
        if {item.id for item in wanted} != {item.id for item in found} or len(wanted) != len(found):
            raise differ(f"{len(wanted)} {kind} were meant, {len(found)} are stored, or other ids")
        by_id = {item.id: item.measurements for item in found}
        different = _first_different(
            [item.measurements for item in wanted], [by_id[item.id] for item in wanted]
        )
        if different is not None:
            raise differ(f"the measurements of {wanted[different].id}")
    places = {tile.id: (tile.x, tile.y, tile.size_px) for tile in stored.tiles}
    wanted_places = np.array([(t.x, t.y, t.size_px) for t in meant.tiles], float).reshape(-1, 3)
    stored_places = np.array([places[t.id] for t in meant.tiles], float).reshape(-1, 3)
    if np.any(np.abs(wanted_places - stored_places) > storing_tolerance(wanted_places)):
        raise differ("the places of the tiles")
    outlines = {region.id: region for region in stored.regions}
    for region in meant.regions:
        found_region = outlines[region.id]
        if region.name != found_region.name:
            raise differ(f"the name of contour {region.id}")
        if not same_outline(region.polygon, found_region.polygon):
            raise differ(f"the outline of contour {region.id}")
    if meant.contours and meant.contour_class != stored.contour_class:
        raise differ("the class of the contours")


def refuse_changes(changed: Sequence[str], where: Path) -> None:
    """Raise if objects that are not to change did, by their ids."""
    if changed:
        raise stored_otherwise(
            f"{len(changed)} objects of others changed, {changed[0]} first", where
        )


def stored_otherwise(what: str, where: Path) -> QprdError:
    """What QuPath stored is not what was meant, and so was not taken."""
    return QprdError(
        f"What QuPath stored differs from what was meant: {what}. The project is as it was.",
        where=str(where),
        exit_code=ExitCode.FAILED,
    )


def measurement_table(
    measurements: Sequence[Mapping[str, float]], names: Sequence[str] | None = None
) -> tuple[list[str], NDArray[np.float64]]:
    """Measurements of many objects as a table.

    Args:
        measurements: Those of each object.
        names: The columns; None for all names there are.

    Returns:
        The names, and the values (n, names), NaN where an object has none.
    """
    columns = list(names or dict.fromkeys(name for item in measurements for name in item))
    values = [[float(item.get(name, np.nan)) for name in columns] for item in measurements]
    return columns, np.array(values, float).reshape(len(measurements), len(columns))


def _first_different(
    wanted: Sequence[Mapping[str, float]], found: Sequence[Mapping[str, float]]
) -> int | None:
    """Index of the first object whose measurements differ in single precision, None if none."""
    names, values = measurement_table(wanted)
    same = np.array([a.keys() == b.keys() for a, b in zip(wanted, found, strict=True)], bool)
    stored = measurement_table(found, names)[1]
    same &= _equal(values, stored).all(axis=1)
    return None if same.all() else int(np.argmin(same))


def _equal(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    a, b = first.astype(np.float32), second.astype(np.float32)
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))
