"""Outlines that cross themselves, as hands and strangers draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

#: Repairing takes a time that grows with the third power of the crossings: 500 take a second, and a
#: scribble of 500 points would take an hour. Outlines drawn by hand have a few.
MAX_CROSSINGS = 500
#: Parts of an invalid MultiPolygon of which each is compared with all others.
_MAX_PARTS = 3000
#: Pairs of segments that are compared at once.
_CHUNK_PAIRS = 100_000


def repaired(polygon: shapely.Polygon) -> BaseGeometry | None:
    """What an outline encloses, by the even-odd rule where it crosses itself.

    Args:
        polygon: Coordinates are finite.

    Returns:
        The polygon itself if it is valid, else a valid geometry of any kind; None if it crosses
        itself more than `MAX_CROSSINGS` times.
    """
    if polygon.is_valid:
        return polygon
    if crossings(polygon, limit=MAX_CROSSINGS) > MAX_CROSSINGS:
        return None
    return shapely.make_valid(polygon)


def with_nested_holes(polygons: Sequence[BaseGeometry]) -> tuple[list[BaseGeometry], int]:
    """Parts of a MultiPolygon, of which one that lies inside another is a hole in it.

    Such a MultiPolygon is invalid, but some programs write holes so. A part inside a hole is an
    island again. Parts that merely overlap stay as they are, as do more than 3000 parts.

    Args:
        polygons: Valid polygons.

    Returns:
        The parts that are no holes, each without its own, and the number of holes.
    """
    parts = np.array(polygons, dtype=object)
    if len(parts) > _MAX_PARTS or shapely.MultiPolygon(list(polygons)).is_valid:
        return list(polygons), 0
    areas = shapely.area(parts)
    inner, outer = shapely.STRtree(parts).query(parts, predicate="covered_by")
    is_inside = areas[inner] < areas[outer]
    inner, outer = inner[is_inside], outer[is_inside]
    depth = np.bincount(inner, minlength=len(parts))
    left = []
    for index in np.flatnonzero(depth % 2 == 0):
        holes = inner[(outer == index) & (depth[inner] == depth[index] + 1)]
        left.append(shapely.difference(parts[index], shapely.union_all(parts[holes])))
    return left, int(np.count_nonzero(depth % 2))


def crossings(polygon: shapely.Polygon, *, limit: int) -> int:
    """How often the rings of a polygon meet themselves or each other, neighbors in a ring aside.

    Counting ends soon after ``limit`` is exceeded.
    """
    ends = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygon)]
    pairs = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in ends])
    segments = shapely.linestrings(pairs)
    tree = shapely.STRtree(segments)
    size = max(1, _CHUNK_PAIRS // len(segments))
    found = 0
    for first in range(0, len(segments), size):
        a, b = tree.query(segments[first : first + size], predicate="intersects")
        between = np.abs(a + first - b)
        # The last segment of a ring meets its first one, too: a few such pairs do not matter.
        found += int((between > 1).sum())
        if found > 2 * limit + 2 * len(ends):
            break
    return max(0, found - 2 * len(ends)) // 2
