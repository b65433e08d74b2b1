"""The real colon slides with their annotations, and random regions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapely.geometry import shape

from qprd.qupath.project import Annotation
from qprd.sampling.build import SlideRegions
from qprd.sampling.regions import label_regions
from qprd.sampling.splits import Split
from qprd.slides.fingerprint import SlideIdentity
from qprd.slides.tissue import tissue_mask
from tests.helpers.colon import OpenColon


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
    splits: dict[str, Split] = {"1": "train", "2": "val"}
    for entry_id, split in splits.items():
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
                SlideRegions.of(
                    entry_id,
                    SlideIdentity(f"colon_{entry_id}.tif"),
                    (slide.width, slide.height, slide.mpp),
                    regions=own,
                    tissue=tissue,
                    metadata_split=split,
                )
            )
    return slides
