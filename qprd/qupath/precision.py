"""The precision of QuPath's coordinates: two decimals in files, single precision in its data."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.shapes import polygons_of

#: Of a coordinate in pixels, as QuPath writes it.
DECIMALS = 2
GRID_PX = 10.0**-DECIMALS


def on_grid(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates rounded to 0.01 px."""
    # "+ 0.0" turns -0.0 into 0.0.
    return np.round(coordinates, DECIMALS) + 0.0


def area_on_grid(region: BaseGeometry) -> BaseGeometry | None:
    """The polygons of a valid region rounded to 0.01 px, valid as well; None if nothing is left."""
    area = shapely.MultiPolygon(polygons_of(region))
    rounded = shapely.transform(area, on_grid)
    if not rounded.is_valid:
        # Parts of the outline met: let GEOS round and repair. It would move others as well.
        snapped = shapely.set_precision(area, GRID_PX)
        rounded = shapely.transform(shapely.MultiPolygon(polygons_of(snapped)), on_grid)
    if rounded.is_empty or not rounded.is_valid:
        return None
    rounded = shapely.remove_repeated_points(rounded)
    return rounded.geoms[0] if len(rounded.geoms) == 1 else rounded


def storing_tolerance(coordinates: NDArray[np.float64]) -> float:
    """0.01 px, or the spacing of single-precision numbers as large as these."""
    largest = np.float32(np.abs(coordinates).max(initial=0.0))
    return max(GRID_PX, float(np.spacing(largest))) + 1e-9


def same_outline(meant: BaseGeometry, stored: BaseGeometry) -> bool:
    """Whether two polygons or multipolygons differ by no more than what storing one costs."""
    tolerance = storing_tolerance(shapely.get_coordinates(meant))
    if shapely.normalize(meant).equals_exact(shapely.normalize(stored), tolerance):
        return True
    # Rounding can change which vertex comes first, or merge two.
    return (
        _rings(meant) == _rings(stored)
        and shapely.hausdorff_distance(meant.boundary, stored.boundary) <= tolerance
    )


def _rings(geometry: BaseGeometry) -> tuple[int, int]:
    """Numbers of polygons and of holes."""
    parts = shapely.get_parts(geometry)
    return len(parts), int(shapely.get_num_interior_rings(parts).sum())
