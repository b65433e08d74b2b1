"""Geometries of GeoJSON features, read from plain data that may be malformed in any way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from qprd.qupath.precision import on_grid
from qprd.qupath.project import SCORED_PLANE

MAX_NESTED = 64
#: Beyond any image.
_FAR_PX = 1e9
_GEOMETRY_DEPTH = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
#: Kinds of geometries.
GEOMETRIES = (*_GEOMETRY_DEPTH, "GeometryCollection")


def parse_geometry(geometry: object, depth: int = 0) -> BaseGeometry | None:
    """A geometry with QuPath's two decimals, possibly invalid; None if there is none.

    Rings need not be closed: QuPath and shapely close them.

    Raises:
        ValueError: it is malformed, or nested too deeply.
    """
    if geometry is None or geometry == {}:
        return None
    if depth > MAX_NESTED:
        raise ValueError("its geometries are nested too deeply")
    if not isinstance(geometry, Mapping):
        raise ValueError("its geometry is no object")
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        members = geometry.get("geometries")
        if not isinstance(members, list):
            raise ValueError("its geometries are no list")
        parts = [parse_geometry(member, depth + 1) for member in members]
        return shapely.GeometryCollection([part for part in parts if part is not None])
    if not isinstance(kind, str) or kind not in _GEOMETRY_DEPTH:
        raise ValueError(f"{kind!r} is not a kind of geometry")
    given = geometry.get("coordinates")
    if kind == "MultiPoint" and isinstance(given, list):
        given = [position for position in given if position != []]
    coordinates = _rounded(given, _GEOMETRY_DEPTH[kind])
    if kind.endswith("Polygon"):
        polygons = coordinates if kind == "MultiPolygon" else [coordinates]
        if any(_has_no_area(ring) for rings in polygons for ring in rings):
            raise ValueError("its outline has fewer than three corners")
        # GEOS crashes on an empty hole; a polygon without an outline has no area.
        polygons = [
            [ring for ring in rings if len(ring)] for rings in polygons if any(map(len, rings[:1]))
        ]
        coordinates = polygons if kind == "MultiPolygon" else next(iter(polygons), [])
    if kind.startswith("Multi"):
        coordinates = [part for part in coordinates if len(part)]
    if isinstance(coordinates, np.ndarray):
        # Of points and lines shapely takes lists alone.
        coordinates = coordinates.tolist()
    return shape({"type": kind, "coordinates": coordinates}) if coordinates else None


def _has_no_area(ring: NDArray[np.float64]) -> bool:
    # A set is far faster than np.unique for the few corners of a tile.
    return 0 < len(ring) < 6 and len(set(map(tuple, ring.tolist()))) < 3


def positions(geometry: object, depth: int = 0) -> Iterator[tuple[float, float]]:
    """All pairs of finite numbers in a malformed geometry: where it is, as far as is known."""
    if depth > MAX_NESTED:
        return
    if isinstance(geometry, Mapping):
        for key in ("coordinates", "geometries"):
            yield from positions(geometry.get(key), depth + 1)
    elif isinstance(geometry, list):
        numbers = [n for n in geometry[:2] if type(n) in (int, float) and -_FAR_PX < n < _FAR_PX]
        if len(numbers) == 2:
            yield numbers[0], numbers[1]
            return
        for part in geometry:
            yield from positions(part, depth + 1)


def _rounded(coordinates: object, depth: int) -> Any:
    """Nested lists of arrays (n, 2) of x and y with QuPath's two decimals; of a point, (2,).

    A third coordinate is left out.

    Raises:
        ValueError: they are something else.
        OverflowError: a number is too large.
    """
    if not isinstance(coordinates, list):
        raise ValueError("its coordinates are no lists of numbers")
    if depth > 1:
        return [_rounded(part, depth - 1) for part in coordinates]
    found = coordinates if depth else [coordinates] * bool(coordinates)
    if not all(isinstance(position, list) for position in found):
        raise ValueError("its coordinates are no lists of numbers")
    if any(len(position) < 2 for position in found):
        raise ValueError("a position has not two numbers")
    if not {type(number) for position in found for number in position} <= {int, float}:
        raise ValueError("a coordinate is not a number")
    numbers = np.array([position[:2] for position in found], np.float64).reshape(-1, 2)
    if not np.isfinite(numbers).all():
        raise ValueError("a coordinate is not a finite number")
    return on_grid(numbers) if depth else on_grid(numbers).ravel()


def parse_plane(geometry: object) -> tuple[int, int]:
    """The z and t that QuPath adds to geometries that are not on the first plane.

    Raises:
        ValueError: they are no whole numbers.
    """
    plane = geometry.get("plane") if isinstance(geometry, Mapping) else None
    if not isinstance(plane, Mapping):
        return SCORED_PLANE
    z, t = (plane.get(axis, 0) for axis in "zt")
    if not isinstance(z, int) or not isinstance(t, int):
        raise ValueError("its plane has no whole numbers")
    return z, t
