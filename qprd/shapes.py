"""Parts of geometries, whatever they are made of."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry


def is_finite(geometry: BaseGeometry) -> bool:
    """True if every coordinate is a finite number."""
    return bool(np.isfinite(shapely.get_coordinates(geometry)).all())


def leaves(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The parts of a geometry that are not empty, collections of collections taken apart."""
    if hasattr(geometry, "geoms"):
        return [leaf for part in geometry.geoms for leaf in leaves(part)]
    return [] if geometry.is_empty else [geometry]


def polygons_of(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The polygons among the `leaves` of a geometry."""
    return [leaf for leaf in leaves(geometry) if leaf.geom_type == "Polygon"]


def multipolygon(geometry: BaseGeometry) -> MultiPolygon:
    """The polygons of a valid geometry that have an area, in an order that is always the same."""
    polygons = [p for p in polygons_of(geometry) if p.area > 0]
    return shapely.normalize(MultiPolygon(polygons))
