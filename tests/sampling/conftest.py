"""The real colon slides with their annotations, and random regions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from shapely.geometry import MultiPolygon, Polygon, shape

from qprd.qupath.project import Annotation
from qprd.sampling.build import SlideRegions
from qprd.sampling.regions import LabelRegions, label_regions
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask


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


@pytest.fixture(scope="session")
def colon_annotations(shared_data: Path) -> dict[str, list[Annotation]]:
    found = {}
    for entry_id in ("1", "2"):
        path = shared_data / "qupath" / "colon" / "annotations" / f"colon_{entry_id}.tif.geojson"
        features = json.loads(path.read_text())["features"]
        found[entry_id] = [
            Annotation(f["id"], shape(f["geometry"]), f["properties"]["classification"]["name"])
            for f in features
        ]
    return found


@pytest.fixture(scope="session")
def open_colon(shared_data: Path) -> OpenColon:
    return OpenColon(shared_data / "slides")


@pytest.fixture(scope="session")
def colon_slides(
    colon_annotations: dict[str, list[Annotation]], open_colon: OpenColon
) -> list[SlideRegions]:
    slides = []
    for entry_id, split in (("1", "train"), ("2", "val")):
        with open_colon(entry_id) as slide:
            assert slide.mpp is not None
            tissue = tissue_mask(slide)
            own = label_regions(
                colon_annotations[entry_id],
                slide.width,
                slide.height,
                mpp=slide.mpp,
                tissue=tissue,
            )
            slides.append(
                SlideRegions(
                    entry_id,
                    f"colon_{entry_id}.tif",
                    slide.width,
                    slide.height,
                    slide.mpp,
                    own,
                    tissue,
                    split,
                )
            )
    return slides
