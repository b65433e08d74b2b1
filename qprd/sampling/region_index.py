"""Cut a region into small pieces for fast random points, coverage of squares, and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

_Geometries = NDArray[np.object_]
_Floats = NDArray[np.float64]
_Clip = Callable[[_Geometries, _Geometries], _Geometries]

#: Vertices from which on a piece is cut further to be measured.
_MANY_VERTICES = 512


class RegionIndex:
    """Answer geometry queries fast on a region of any size and any number of polygons.

    The region is cut along a quadtree that is anchored at (0, 0), never at the region, until each
    piece is a rectangle or fills a quarter of its bounding box. Random points are then cheap
    however small and scattered the region is, and depend on where the region lies, not on how
    its vertices are ordered.

    Args:
        region: Valid polygons in level-0 pixels that do not overlap one another.
        patch_px: Edge of the squares to be queried, which sets the size of the pieces.
    """

    def __init__(self, region: MultiPolygon, patch_px: float) -> None:
        smallest = 2.0 ** np.floor(np.log2(patch_px / 8))
        largest = 64 * smallest
        cut = _cut(shapely.get_parts(region), smallest, largest)
        self._pieces = _Pieces(cut)
        self._cumulative = np.cumsum(_box_areas(self._pieces.bounds))
        # What is drawn at random depends on these pieces. To measure, those with many vertices are
        # cut further, as each measurement goes through all vertices of a piece.
        detailed = shapely.get_num_coordinates(cut) > _MANY_VERTICES
        self._measured = self._pieces
        if detailed.any():
            finer = _cut(cut[detailed], smallest / 64, largest, most_vertices=_MANY_VERTICES)
            self._measured = _Pieces(np.concatenate([cut[~detailed], finer]))

    @property
    def area_px2(self) -> float:
        """Area of the region in square level-0 pixels."""
        return float(self._pieces.areas.sum())

    def points(self, uniform: _Floats) -> tuple[_Floats, NDArray[np.bool_]]:
        """Map random numbers to points, of which those inside are uniform over the region.

        Args:
            uniform: (n, 3) uniform random numbers in [0, 1).

        Returns:
            Points (n, 2) as x, y, and a mask (n,) of those that lie in the region.
        """
        pieces = self._pieces
        if not len(pieces.shapes):
            return np.zeros((len(uniform), 2)), np.zeros(len(uniform), dtype=bool)
        piece = np.searchsorted(self._cumulative, uniform[:, 0] * self._cumulative[-1], "right")
        piece = np.minimum(piece, len(pieces.shapes) - 1)
        low, high = pieces.bounds[piece, :2], pieces.bounds[piece, 2:]
        xy = low + uniform[:, 1:3] * (high - low)
        inside = pieces.is_rectangle[piece].copy()
        rest = np.flatnonzero(~inside)
        inside[rest] = shapely.contains_xy(pieces.shapes[piece[rest]], xy[rest])
        return xy, inside

    def coverage(self, x: _Floats, y: _Floats, size_px: float) -> _Floats:
        """Return the share, 0..1, of each square with top-left corner (x, y) in the region."""
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        pieces = self._measured
        boxes = shapely.box(x, y, x + size_px, y + size_px)
        square, piece = pieces.tree.query(boxes)
        bounds = pieces.bounds[piece]
        overlap_x = np.minimum(bounds[:, 2], x[square] + size_px) - np.maximum(
            bounds[:, 0], x[square]
        )
        overlap_y = np.minimum(bounds[:, 3], y[square] + size_px) - np.maximum(
            bounds[:, 1], y[square]
        )
        area = np.maximum(overlap_x, 0) * np.maximum(overlap_y, 0)
        whole = area >= _box_areas(bounds)
        area[whole] = pieces.areas[piece[whole]]
        partly = ~whole & ~pieces.is_rectangle[piece]
        for cut, clip in (
            (partly & pieces.is_valid[piece], shapely.intersection),
            (partly & ~pieces.is_valid[piece], _clipped),
        ):
            area[cut] = shapely.area(clip(pieces.shapes[piece[cut]], boxes[square[cut]]))
        covered = np.bincount(square, weights=area, minlength=len(x))
        return np.minimum(covered / size_px**2, 1.0)

    def rasterize(self, x: float, y: float, size_px: float, cells: int) -> NDArray[np.bool_]:
        """Return the mask (cells, cells) of cells of a square with their center in the region."""
        centers = (np.arange(cells) + 0.5) * size_px / cells
        grid_x, grid_y = np.meshgrid(x + centers, y + centers)
        inside = np.zeros((cells, cells), dtype=bool)
        pieces = self._measured
        for piece in pieces.tree.query(shapely.box(x, y, x + size_px, y + size_px)):
            # Boundaries count as inside, or centers on a cut between two pieces would be lost.
            inside |= shapely.intersects_xy(pieces.shapes[piece], grid_x, grid_y)
        return inside


class _Pieces:
    """Pieces of a region that do not overlap, with what is asked of them again and again."""

    def __init__(self, shapes: _Geometries) -> None:
        shapely.prepare(shapes)
        self.shapes = shapes
        self.bounds: _Floats = shapely.bounds(shapes).reshape(-1, 4)
        self.areas: _Floats = shapely.area(shapes)
        self.is_rectangle = self.areas >= _box_areas(self.bounds) * (1 - 1e-9)
        self.is_valid = shapely.is_valid(shapes)
        self.tree = shapely.STRtree(shapes)


def _box_areas(bounds: _Floats) -> _Floats:
    areas: _Floats = (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])
    return areas


def _cut(
    polygons: _Geometries, smallest: float, largest: float, *, most_vertices: int | None = None
) -> _Geometries:
    """Cut polygons along quadtree cells of edge ``smallest`` * 2**k, as in `RegionIndex`.

    A piece in one of the smallest cells may have more than ``most_vertices``.
    """
    if not len(polygons):
        return polygons
    bounds = shapely.bounds(polygons)
    extent = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    levels = np.maximum(np.ceil(np.log2(np.maximum(extent, smallest) / smallest)), 0).astype(int)
    clip: _Clip = shapely.intersection if most_vertices is None else _clipped
    done: list[_Geometries] = []
    keys: list[_Floats] = []
    waiting = np.zeros(0, dtype=object)
    for level in range(int(levels.max()), -1, -1):
        edge = smallest * 2.0**level
        # A polygon enters at the level where it spans at most two cells each way.
        waiting = _cut_at(np.concatenate([waiting, polygons[levels == level]]), edge, clip)
        area, box_area = shapely.area(waiting), _box_areas(shapely.bounds(waiting).reshape(-1, 4))
        finished = area >= box_area * (1 - 1e-9)
        if edge <= largest:
            finished |= area >= box_area / 4
        if most_vertices is not None:
            finished &= shapely.get_num_coordinates(waiting) <= most_vertices
        if level == 0:
            finished[:] = True
        done.append(waiting[finished])
        keys.append(_sort_keys(waiting[finished], edge))
        waiting = waiting[~finished]
    order = np.lexsort(np.concatenate(keys).T)
    pieces: _Geometries = np.concatenate(done)[order]
    return pieces


def _sort_keys(pieces: _Geometries, edge: float) -> _Floats:
    bounds = shapely.bounds(pieces).reshape(-1, 4)
    center = (bounds[:, :2] + bounds[:, 2:]) / 2
    cell = np.floor(center / edge)
    return np.column_stack([bounds[:, 1], bounds[:, 0], cell, np.full(len(pieces), edge)])


def _cut_at(pieces: _Geometries, edge: float, clip: _Clip) -> _Geometries:
    """Intersect each piece with the cells of a grid of this edge that it spans (2 x 2 at most)."""
    bounds = shapely.bounds(pieces).reshape(-1, 4)
    first = np.floor(bounds[:, :2] / edge)
    last = np.maximum(np.ceil(bounds[:, 2:] / edge) - 1, first)
    single = (first == last).all(axis=1)
    out = [pieces[single]]
    split = np.flatnonzero(~single)
    for dx in (0, 1):
        for dy in (0, 1):
            cell = first[split] + (dx, dy)
            spans = (cell <= last[split]).all(axis=1)
            low = cell[spans] * edge
            boxes = shapely.box(low[:, 0], low[:, 1], low[:, 0] + edge, low[:, 1] + edge)
            out.append(clip(pieces[split[spans]], boxes))
    cut = np.concatenate(out)
    # An intersection may bring along edges and corners that merely touch.
    mixed = np.flatnonzero(shapely.get_type_id(cut) == shapely.GeometryType.GEOMETRYCOLLECTION)
    for i in mixed:
        parts = shapely.get_parts(cut[i])
        cut[i] = shapely.multipolygons(parts[shapely.get_type_id(parts) == 3])
    solid: _Geometries = cut[shapely.area(cut) > 0]
    return solid


def _clipped(shapes: _Geometries, boxes: _Geometries) -> _Geometries:
    """Return the part of each shape in its rectangle; it may touch itself, and its area is right.

    With many vertices that takes a twentieth of the time of an intersection.
    """
    parts = [
        shapely.clip_by_rect(shape, *bounds)
        for shape, bounds in zip(shapes, shapely.bounds(boxes), strict=True)
    ]
    return np.array(parts, dtype=object)
