"""The surroundings of geometries, within a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from qprd.shapes import leaves

#: GEOS draws an arc as chords, none over more than 1.5 of the angle that it is asked for. Buffers
#: that are wider by this factor have their chords outside the true arc.
_QUAD_SEGS = 8
_OUTSIDE_ARC = 1 / math.cos(0.75 * math.pi / (2 * _QUAD_SEGS)) + 1e-4


def surroundings(geometries: Sequence[BaseGeometry], margin_px: float) -> BaseGeometry:
    """What lies within a margin of geometries, and up to a quarter of the margin beyond."""
    # Buffering every vertex of a freehand outline takes minutes and changes nothing. Outlines are
    # simplified as lines, of which GEOS keeps both ends; it may move the start of a ring by more
    # than the tolerance.
    tolerance = margin_px / 10
    parts = np.array([leaf for geometry in geometries for leaf in leaves(geometry)], dtype=object)
    areas = np.where(shapely.is_valid(parts), parts, shapely.convex_hull(parts))
    outlines = np.where(shapely.get_dimensions(areas) == 2, shapely.boundary(areas), areas)
    with np.errstate(over="ignore"):  # GEOS raises this flag on outlines that it handles well
        outlines = shapely.simplify(outlines, tolerance, preserve_topology=False)
    wide = _buffered(outlines, margin_px + tolerance)
    return shapely.disjoint_subset_union_all([*areas, *wide])


def _buffered(outlines: NDArray[np.object_], distance_px: float) -> NDArray[np.object_]:
    """Buffer lines and points, nowhere by less than the distance.

    GEOS loses parts of the buffers of some lines that touch themselves; these are buffered segment
    by segment.
    """

    def buffer(lines: NDArray[np.object_]) -> NDArray[np.object_]:
        wide = shapely.buffer(lines, distance_px * _OUTSIDE_ARC, quad_segs=_QUAD_SEGS)
        return np.asarray(wide, dtype=object)

    wide = buffer(outlines)
    for index in np.flatnonzero(shapely.distance(shapely.boundary(wide), outlines) < distance_px):
        segments = [
            shapely.linestrings(np.stack([xy[:-1], xy[1:]], axis=1))
            for xy in map(shapely.get_coordinates, leaves(outlines[index]))
        ]
        wide[index] = shapely.union_all(buffer(np.concatenate(segments)))
    return wide
