"""Annotations of an image of 1000 x 800 px, and the label regions that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from qprd.qupath.project import Annotation
from qprd.sampling.regions import LabelRegions, label_regions
from qprd.settings import TrainConfig
from qprd.slides.tissue import TissueMask

WIDTH, HEIGHT = 1000, 800
ALL_TISSUE = TissueMask(np.ones((80, 100), dtype=bool), 10.0, 1.0)


def drawn(geometry: BaseGeometry, class_name: str | None, id: str = "a") -> Annotation:
    return Annotation(id, geometry, class_name)


def label(*annotations: Annotation, **options: Any) -> LabelRegions:
    mpp, tissue = options.pop("mpp", 1.0), options.pop("tissue", None)
    config = TrainConfig(**options)
    return label_regions(annotations, WIDTH, HEIGHT, mpp=mpp, config=config, tissue=tissue)


def reasons(regions: LabelRegions) -> str:
    return "\n".join(regions.summary())


TUMOR = drawn(box(0, 0, 100, 100), "Tumor")
