"""Contours: polygons around the tumor of a score map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import MultiPolygon, Polygon

from qprd.predictions import AREA_UM2, MAX_SCORE, MEAN_PROBABILITY, MEAN_SCORE, ScoreMap

#: Turns raw scores of any shape into probabilities, without changing their order.
ProbabilityOf = Callable[[NDArray[Any]], NDArray[np.float64]]

#: Coordinates are multiples of this, the precision at which QuPath's GeoJSON keeps them.
GRID_PX = 0.01

#: The outline stays at least about this fraction of a cell away from every cell center.
_CLEARANCE = 1e-3

#: The four neighbors of a cell.
_CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.uint8)


def contours(
    score_map: ScoreMap,
    threshold: float,
    size: tuple[int, int] | None = None,
    *,
    min_area_um2: float,
    tolerance_um: float,
    min_hole_um2: float | None = None,
    probability_of: ProbabilityOf | None = None,
) -> list[Polygon]:
    """Outline the regions whose score is at or above the threshold.

    An outline is an iso-line of the probabilities at the probability of the threshold, or without a
    calibration of the raw scores at the threshold. The same cells are inside either way. The
    iso-line is that of the surface through the cell centers (marching squares with linear
    interpolation) instead of the staircase around the cells. It is smooth, and as it separates the
    centers of cells at or above the threshold from those below, it stays within one cell of the
    staircase. Where tumor meets the edge of the tissue or of the map there is no score to
    interpolate to, and the outline runs midway between the two centers, along the cell edge. Cells
    that touch only at a corner are joined if the mean of the four scores around the corner is above
    the threshold.

    The outlines are then simplified (Douglas-Peucker, all polygons together so that none crosses
    another). A region inside a hole is a polygon of its own, unless the hole is filled.

    Args:
        score_map: Scores; NaN counts as below any threshold.
        threshold: Raw score, inclusive.
        size: Width and height of the image in level-0 pixels, at which contours are cut off: cells
            at its right and lower edge may reach beyond it. None cuts off nothing.
        min_area_um2: Smaller polygons are dropped, judged after the simplification.
        tolerance_um: No point of a simplified outline is farther than this from the original one,
            and the reverse (Hausdorff distance). Below `GRID_PX` the rounding decides.
        min_hole_um2: Smaller holes are filled with what lies in them, judged before the
            simplification; None takes ``min_area_um2``.
        probability_of: Turns raw scores into probabilities; None without a calibration.

    Returns:
        Valid polygons in level-0 pixels of the QuPath frame whose interiors do not overlap,
        largest first, coordinates rounded to `GRID_PX`.

    Raises:
        ValueError: The threshold or a score is infinite, or an option is negative.
    """
    if not np.isfinite(threshold):
        raise ValueError(f"threshold must be finite, not {threshold}")
    min_hole_um2 = min_area_um2 if min_hole_um2 is None else min_hole_um2
    if min(min_area_um2, min_hole_um2, tolerance_um) < 0:
        raise ValueError("min_area_um2, min_hole_um2 and tolerance_um must not be negative")
    if np.isinf(score_map.scores).any():
        raise ValueError("scores must be finite or NaN")
    above = score_map.scores >= np.float64(threshold)  # numpy would round a Python float to float32
    if not above.any():
        return []
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    # One cell of margin keeps the neighbors that the outline is interpolated to.
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    window = score_map.scores[top : rows[-1] + 2, left : columns[-1] + 2]

    px2_to_um2 = score_map.mpp**2
    surface, level = window.astype(np.float64), threshold
    if probability_of is not None:
        surface = probability_of(window)
        level = float(probability_of(np.array([threshold], dtype=np.float64))[0])
    points, ring_of, polygon_of = _trace(_excess(surface - level, window >= np.float64(threshold)))
    origin = np.array(
        [score_map.x + left * score_map.cell_px, score_map.y + top * score_map.cell_px]
    )
    rings = shapely.linearrings(origin + points * score_map.cell_px, indices=ring_of)
    polygons = _large_enough(
        rings, polygon_of, min_area_um2 / px2_to_um2, min_hole_um2 / px2_to_um2
    )
    polygons = _simplified(polygons, tolerance_um / score_map.mpp)
    found = _largest_first(polygons[shapely.area(polygons) * px2_to_um2 >= min_area_um2])
    if size is None:
        return found
    return inside_image(found, *size, min_area_px2=min_area_um2 / px2_to_um2)


def inside_image(
    polygons: Sequence[Polygon], width: int, height: int, *, min_area_px2: float = 0.0
) -> list[Polygon]:
    """Clip polygons to the image, and drop smaller pieces of those that are clipped."""
    image = shapely.box(0, 0, width, height)
    clipped: list[Polygon] = []
    for polygon in polygons:
        if image.covers(polygon):
            clipped.append(polygon)
        else:
            parts = shapely.get_parts(polygon.intersection(image))
            clipped += [
                part
                for part in parts
                if isinstance(part, Polygon) and 0 < part.area >= min_area_px2
            ]
    return clipped


def contour_measurements(
    score_map: ScoreMap, polygon: Polygon, probability_of: ProbabilityOf | None = None
) -> dict[str, float]:
    """Measure one contour: mean and maximum score, mean probability, and area.

    Args:
        score_map: The scores that the contour came from.
        polygon: Level-0 pixels of the QuPath frame.
        probability_of: Turns raw scores into probabilities; None leaves out the mean probability.

    Returns:
        `MEAN_SCORE`, `MAX_SCORE` and `MEAN_PROBABILITY` over the tissue cells whose centers lie in
        the polygon, or, in a polygon so small or thin that there are none, over those it overlaps
        (NaN if it lies outside the tissue); `AREA_UM2` is the polygon's own area.
    """
    cell_px, (n_rows, n_columns) = score_map.cell_px, score_map.scores.shape
    x0, y0, x1, y1 = np.asarray(polygon.bounds)
    left = int(np.clip(np.floor((x0 - score_map.x) / cell_px), 0, n_columns))
    right = int(np.clip(np.floor((x1 - score_map.x) / cell_px) + 1, 0, n_columns))
    top = int(np.clip(np.floor((y0 - score_map.y) / cell_px), 0, n_rows))
    bottom = int(np.clip(np.floor((y1 - score_map.y) / cell_px) + 1, 0, n_rows))
    rows, columns = np.nonzero(~np.isnan(score_map.scores[top:bottom, left:right]))
    scores = score_map.scores[top:bottom, left:right][rows, columns].astype(np.float64)
    x = score_map.x + (left + columns) * cell_px
    y = score_map.y + (top + rows) * cell_px

    shapely.prepare(polygon)
    chosen = shapely.contains_xy(polygon, x + cell_px / 2, y + cell_px / 2)
    if not chosen.any():
        chosen = shapely.intersects(polygon, shapely.box(x, y, x + cell_px, y + cell_px))
    scores = scores[chosen]
    nan = float("nan")
    measured = {
        MEAN_SCORE: float(scores.mean()) if scores.size else nan,
        MAX_SCORE: float(scores.max()) if scores.size else nan,
    }
    if probability_of is not None:
        measured[MEAN_PROBABILITY] = float(probability_of(scores).mean()) if scores.size else nan
    return {**measured, AREA_UM2: float(polygon.area * score_map.mpp**2)}


def _excess(over: NDArray[np.float64], above: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of each cell from the threshold, never 0, with one cell of outside on every side.

    A value of exactly 0 would put the outline through a cell's center, where rings can touch and
    collapse. A cell outside the tissue gets the negative mean of its neighbors above the
    threshold, which puts the outline midway between the two.

    Args:
        over: Value minus threshold, NaN outside the tissue; rounding may have made it 0.
        above: True for cells that are inside.
    """
    excess = np.pad(over, 1, constant_values=np.nan)
    outside, above = np.isnan(excess), np.pad(above, 1)
    smallest = _CLEARANCE * (float(np.nanmax(np.abs(excess))) or 1.0)
    excess = np.where(above, np.maximum(excess, smallest), np.minimum(excess, -smallest))

    total = ndimage.convolve(np.where(above, excess, 0.0), _CROSS, mode="constant")
    count = ndimage.convolve(above.view(np.uint8), _CROSS, mode="constant")
    # A hair below, so that a corner between two cells of tissue and two of glass does not join.
    mirrored = -(1 + 1e-9) * total / np.maximum(count, 1)
    return np.where(outside, np.minimum(mirrored, -smallest), excess)


def _trace(
    excess: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Trace the outlines of positive excess.

    Returns:
        Points (n, 2), x before y, in cells: (0, 0) is the outer corner of the first real cell; the
        number of the ring of each point; and the number of the polygon of each ring, of which the
        outer ring comes first.
    """
    generator = contourpy.contour_generator(
        z=excess, name="serial", fill_type=contourpy.FillType.ChunkCombinedOffsetOffset
    )
    # contourpy's type is the union over all fill types; this one gives lists of one array each.
    filled = cast(
        "tuple[list[NDArray[np.generic]], ...]", generator.filled(0.0, 2.0 * float(excess.max()))
    )
    (points,), (ring_starts,), (polygon_starts,) = filled
    ring_of, polygon_of = (
        np.repeat(np.arange(len(starts) - 1), np.asarray(np.diff(starts), np.int64))
        for starts in (ring_starts.astype(np.int64), polygon_starts.astype(np.int64))
    )
    # Index 1 is the center of the first real cell, whose corner is half a cell before it.
    return points.astype(np.float64) - 0.5, ring_of, polygon_of


def _large_enough(
    rings: NDArray[np.object_], polygon_of: NDArray[np.int64], min_area: float, min_hole: float
) -> NDArray[np.object_]:
    """Fill the small holes, drop the small polygons; areas in the unit of the points, squared."""
    areas = shapely.area(shapely.polygons(rings))
    outer = np.diff(polygon_of, prepend=-1) > 0
    keep_ring = outer | (areas >= min_hole)
    signed = np.where(outer, areas, np.where(keep_ring, -areas, 0.0))
    kept = keep_ring & (np.bincount(polygon_of, signed) >= min_area)[polygon_of]
    if not kept.any():
        return np.empty(0, dtype=object)
    _, numbers = np.unique(polygon_of[kept], return_inverse=True)
    polygons: NDArray[np.object_] = shapely.polygons(rings[kept], indices=numbers)

    # A kept polygon inside a filled hole would overlap the filling.
    fillings = shapely.polygons(rings[~keep_ring & (areas >= min_area)])
    if fillings.size:
        inside = shapely.STRtree(fillings).query(polygons, predicate="within")[0]
        polygons = np.delete(polygons, inside)
    return polygons


def _simplified(polygons: NDArray[np.object_], tolerance_px: float) -> NDArray[np.object_]:
    """Simplify and round; every polygon valid, interiors apart.

    Ring by ring (fast: GEOS' topology-preserving simplification takes seconds on a large map),
    then every polygon that is invalid or reaches into another one is simplified again at half the
    tolerance.
    """
    # The rounding moves points by up to a grid diagonal, which the tolerance includes.
    tolerances = np.full(len(polygons), max(tolerance_px - GRID_PX, 0.0))
    simple = _simplify_rings(polygons, tolerances)
    while (faulty := _faulty(simple) & (tolerances > 0)).any():
        tolerances[faulty] = np.where(tolerances[faulty] > GRID_PX, tolerances[faulty] / 2, 0.0)
        simple[faulty] = _simplify_rings(polygons[faulty], tolerances[faulty])
    rounded = shapely.set_precision(MultiPolygon(list(simple)), GRID_PX)
    parts: NDArray[np.object_] = shapely.get_parts(rounded)
    return parts


def _simplify_rings(
    polygons: NDArray[np.object_], tolerances_px: NDArray[np.float64]
) -> NDArray[np.object_]:
    """Douglas-Peucker on every ring by itself; one that would collapse, at half the tolerance."""
    rings, owners = shapely.get_rings(polygons, return_index=True)
    # As lines: GEOS would "repair" what it finds invalid in a polygon, beyond any tolerance.
    coordinates, ring_of = shapely.get_coordinates(rings, return_index=True)
    lines = shapely.linestrings(coordinates, indices=ring_of)
    tolerances = tolerances_px[owners]
    simple = shapely.simplify(lines, tolerances, preserve_topology=False)
    while (collapsed := shapely.get_num_coordinates(simple) < 4).any():
        tolerances[collapsed] /= 2
        simple[collapsed] = shapely.simplify(
            lines[collapsed], tolerances[collapsed], preserve_topology=False
        )
    points, ring_of = shapely.get_coordinates(simple, return_index=True)
    built: NDArray[np.object_] = shapely.polygons(
        shapely.linearrings(points, indices=ring_of), indices=owners
    )
    return built


def _faulty(polygons: NDArray[np.object_]) -> NDArray[np.bool_]:
    """True for polygons that are invalid or share more than points with another one."""
    faulty: NDArray[np.bool_] = ~shapely.is_valid(polygons)
    if not faulty.any() and not MultiPolygon(list(polygons)).is_valid:
        first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
        for a, b in zip(first, second, strict=True):
            if a < b and not MultiPolygon([polygons[a], polygons[b]]).is_valid:
                faulty[[a, b]] = True
    return faulty


def _largest_first(polygons: NDArray[np.object_]) -> list[Polygon]:
    polygons = shapely.normalize(polygons)
    by_area = sorted(polygons, key=lambda polygon: (-polygon.area, polygon.bounds, polygon.wkb))
    return list(by_area)
