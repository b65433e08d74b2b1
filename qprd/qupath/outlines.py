"""Outlines that cross themselves, as hands and strangers draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

#: Repairing takes a time that grows with the third power of the crossings: 500 take a second, and a
#: scribble of 500 points would take an hour. Outlines drawn by hand have a few.
MAX_CROSSINGS = 500
#: Parts of an invalid MultiPolygon of which each is compared with all others.
_MAX_PARTS = 3000
#: Segments that are looked at first; a random few are enough to recognize a scribble.
_FIRST_GROUP = 64
#: Pairs of segments that are compared at most, which takes seconds.
_MOST_COMPARED = 5_000_000


def repaired(polygon: shapely.Polygon) -> BaseGeometry | None:
    """What an outline of finite coordinates encloses, by the even-odd rule where it crosses itself.

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
    """Valid parts of a MultiPolygon, of which one that lies inside another is a hole in it.

    Such a MultiPolygon is invalid, but some programs write holes so. A part inside a hole is an
    island again. Parts that merely overlap stay as they are, as do more than 3000 parts.

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

    Counting ends soon after ``limit`` is exceeded, or when too many segments are close to others
    to compare them all, which counts as more than ``limit``. Segments are looked at in a random
    order and in ever larger groups, so that a scribble is found out before it fills the memory.
    """
    ends: list[NDArray[np.float64]] = []
    neighbors: list[NDArray[np.intp]] = []
    for ring in map(shapely.get_coordinates, shapely.get_rings(polygon)):
        moved = np.flatnonzero((ring[1:] != ring[:-1]).any(axis=1))
        ends.append(np.stack([ring[moved], ring[moved + 1]], axis=1))
        neighbors.append(np.roll(np.arange(len(moved)), 1) + sum(map(len, neighbors)))
    segments, before = shapely.linestrings(np.concatenate(ends)), np.concatenate(neighbors)
    tree = shapely.STRtree(segments)
    order = np.random.default_rng(0).permutation(len(segments))
    found = compared = first = 0
    size = _FIRST_GROUP
    while first < len(order):
        group = order[first : first + size]
        index, other = tree.query(segments[group])
        one = group[index]
        apart = (one != other) & (before[one] != other) & (before[other] != one)
        found += int(shapely.intersects(segments[one[apart]], segments[other[apart]]).sum())
        compared += int(apart.sum())
        # Each crossing is met twice, from either of its segments.
        if found > 2 * limit or compared > _MOST_COMPARED:
            return limit + 1
        first += size
        size *= 2
    return found // 2
