"""The real colon slides, and label regions made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shapely.geometry import MultiPolygon, Polygon

from qprd.sampling.regions import LabelRegions
from qprd.slides.slide import Slide


def square(x: float, y: float, edge: float) -> Polygon:
    return Polygon([(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)])


def regions(tumor: MultiPolygon | None = None, normal: MultiPolygon | None = None) -> LabelRegions:
    return LabelRegions(tumor or MultiPolygon(), normal or MultiPolygon(), (), "annotations")


@dataclass(frozen=True)
class OpenColon:
    """Picklable opener of the colon slides, entry ids 1 and 2."""

    folder: Path

    def __call__(self, entry_id: str) -> Slide:
        return Slide(self.folder / f"colon_{entry_id}.tif")
