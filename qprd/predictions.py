"""Predictions for one slide, and what marks them as ours in QuPath.

Here is the one home of our classes, names, measurements, metadata keys and ids. The scripts in
``groovy/`` repeat some of them, as each has to work alone inside QuPath; a test compares the two.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from qprd.shapes import polygons_of

#: Measurement names written to QuPath.
SCORE = "qprd: score"
PROBABILITY = "qprd: probability"
MEAN_SCORE = "qprd: mean score"
MAX_SCORE = "qprd: max score"
MEAN_PROBABILITY = "qprd: mean probability"
AREA_UM2 = "qprd: area um^2"
#: Place of a contour among those of its slide, from 1, the largest first.
NUMBER = "qprd: number"
#: Place of a region in the order of review, from 1; contours have none.
REVIEW_RANK = "qprd: review rank"

#: Keys of entry metadata; what begins with the prefix is ours.
OWN_PREFIX = "qprd: "
BUNDLE = "qprd: bundle"
DATE = "qprd: date"
SLIDE_SCORE = "qprd: slide score"
SLIDE_PROBABILITY = "qprd: slide probability"
#: Always a number: the raw score from which tissue counts as tumor.
THRESHOLD = "qprd: threshold"
#: Set by ``rethreshold.groovy`` alone: the probability that was chosen there, and ``QuPath``.
PROBABILITY_THRESHOLD = "qprd: probability threshold"
THRESHOLD_SET_IN = "qprd: threshold set in"

#: The derived part of the class of a predicted contour: ``Tumor`` becomes ``Tumor: qprd``. Also the
#: member of our GeoJSON collections that QuPath passes over and our scripts read.
OWN = "qprd"

#: GeoJSON property of an annotation that QuPath cannot export: the reason. Its geometry is then the
#: points of its outline.
FAULT = "qprd: fault"

CONTOUR_CLASS = f"Tumor: {OWN}"
CONTOUR_COLOR = (255, 140, 0)

#: Class of a region that somebody should look at next: neither tumor nor normal.
REVIEW_CLASS = f"Review: {OWN}"
REVIEW_COLOR = (0, 170, 220)

#: Name of the tiles that earlier versions wrote. Tiles and contours have none now: QuPath paints
#: names over the tissue.
OLD_TILE_NAME = "qprd tile"
#: Color of a tile without a heatmap, ARGB: as good as transparent, as QuPath would outline
#: thousands of tiles. An alpha of 0 is opaque to QuPath; filled detections get a veil of the color.
TILE_COLOR = 0x01FFFFFF

#: How the ids of our objects begin, "qprd" in ASCII. Where an outline is edited, QuPath drops the
#: measurements, but keeps the id.
OWN_ID = "71707264-"

_OBJECT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: Namespace of the deterministic object ids.
_NAMESPACE = uuid.UUID("6d2f2ad4-30b8-5b0c-9d0e-6f1b7d0c8a11")


@dataclass(frozen=True)
class ScoreMap:
    """Scores of one slide on a regular grid.

    Attributes:
        scores: float32, (rows, columns), raw, higher is more like tumor; NaN where there is no
            tissue.
        x: Level-0 x of the left edge of column 0, QuPath frame.
        y: Level-0 y of the top edge of row 0, QuPath frame.
        cell_px: Edge of one cell in level-0 pixels; cell (r, c) covers
            [x + c * cell_px, x + (c + 1) * cell_px) by [y + r * cell_px, y + (r + 1) * cell_px).
        mpp: Micrometers per level-0 pixel.
    """

    scores: NDArray[np.float32]
    x: float
    y: float
    cell_px: float
    mpp: float

    def centers(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The x and y of the centers of cells in level-0 pixels."""
        x = self.x + (columns.astype(np.float64) + 0.5) * self.cell_px
        y = self.y + (rows.astype(np.float64) + 0.5) * self.cell_px
        return x, y

    def cells_inside(self, region: BaseGeometry) -> NDArray[np.bool_]:
        """Find the scored cells whose centers lie in a region.

        Args:
            region: Level-0 pixels; invalid polygons are repaired, points and lines ignored.

        Returns:
            (rows, columns) bool.
        """
        valid = shapely.make_valid(shapely.get_parts(region))
        polygons = shapely.union_all([p for part in valid for p in polygons_of(part)])
        shapely.prepare(polygons)
        rows, columns = np.nonzero(~np.isnan(self.scores))
        inside = np.zeros(self.scores.shape, np.bool_)
        inside[rows, columns] = shapely.contains_xy(polygons, *self.centers(rows, columns))
        return inside


@dataclass(frozen=True)
class LesionPoints:
    """Points of one slide where a lesion is suspected, the highest score first.

    Attributes:
        scores: float64, (n,), finite: probabilities where the bundle is calibrated, else raw.
        x: float64, (n,), level-0 pixels of the QuPath frame.
        y: float64, (n,), level-0 pixels of the QuPath frame.
    """

    scores: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class PredictedTile:
    """A tile detection in level-0 pixels of the QuPath frame, a square but at the slide's edge."""

    id: str
    x: float
    y: float
    width: float
    height: float
    measurements: Mapping[str, float]


@dataclass(frozen=True)
class PredictedAnnotation:
    """An annotation of ours: a valid polygon, holes allowed, level-0 QuPath frame."""

    id: str
    polygon: Polygon
    name: str | None
    measurements: Mapping[str, float]


@dataclass(frozen=True)
class PredictedContour(PredictedAnnotation):
    """A predicted tumor region."""


@dataclass(frozen=True)
class ReviewRegion(PredictedAnnotation):
    """Tissue whose review would help most; `REVIEW_RANK` is among its measurements."""


@dataclass(frozen=True)
class Predictions:
    """All that is written into QuPath for one entry.

    Attributes:
        metadata: Entry metadata to set; every key starts with ``qprd: ``.
        unusable: Of predictions that were read: objects that are not among them, as an edit or
            damage has made them something else, each with the reason.
    """

    tiles: tuple[PredictedTile, ...]
    contours: tuple[PredictedContour, ...]
    contour_class: str = CONTOUR_CLASS
    contour_color: tuple[int, int, int] = CONTOUR_COLOR
    metadata: Mapping[str, str] = field(default_factory=dict)
    review: tuple[ReviewRegion, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def annotations(self) -> tuple[PredictedAnnotation, ...]:
        """All annotations: contours, then regions to review."""
        return (*self.contours, *self.review)


def review_name(rank: int) -> str:
    """Name of the region with this place in the order of review, from 1.

    It is as short as can be, as QuPath paints it over the tissue at any zoom.
    """
    return str(rank)


def was_predicted(object_id: str, name: str | None, measurements: Mapping[str, float]) -> bool:
    """Whether an annotation began as ours, even if its class or its outline was changed since.

    Earlier versions gave no `OWN_ID`, but names.
    """
    named = name is not None and re.fullmatch(r"qprd (review )?[0-9]+", name) is not None
    return MEAN_SCORE in measurements or object_id.startswith(OWN_ID) or named


def is_object_id(text: str) -> bool:
    """True for a UUID in the form that QuPath keeps."""
    return _OBJECT_ID.fullmatch(text) is not None


def object_id(bundle: str, entry_id: str, kind: str, index: int) -> str:
    """Deterministic UUID of one of our objects: the same prediction gives the same ids."""
    digest = str(uuid.uuid5(_NAMESPACE, f"{bundle}/{entry_id}/{kind}/{index}"))
    return OWN_ID + digest[len(OWN_ID) :]


def another_id(object_id: str, attempt: int) -> str:
    """Another id of ours, derived from one that is taken."""
    return OWN_ID + str(uuid.uuid5(uuid.UUID(object_id), str(attempt)))[len(OWN_ID) :]


def class_parts(class_name: str) -> tuple[str, ...]:
    """Components of a QuPath class name: ``Tumor: sub`` is ``("Tumor", "sub")``."""
    return tuple(part.strip() for part in class_name.split(":"))


def is_own_class(class_name: str | None) -> bool:
    """True for a class such as ``Tumor: qprd``.

    A person may draw with it too: only together with `MEAN_SCORE` does it make a contour ours.
    """
    return class_name is not None and OWN in class_parts(class_name)


def is_own_contour(class_name: str | None, measurements: Mapping[str, float]) -> bool:
    """Whether an annotation is ours, and nobody has accepted or rejected it since."""
    return is_own_class(class_name) and MEAN_SCORE in measurements


def is_own_tile(name: str | None, measurements: Mapping[str, float]) -> bool:
    """Whether a tile is ours: one that nobody has given a name of their own."""
    return name in (None, OLD_TILE_NAME) and SCORE in measurements


def own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Those of an entry's metadata that are ours."""
    return {key: value for key, value in metadata.items() if key.startswith(OWN_PREFIX)}


def replace_own_metadata(metadata: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """An entry's metadata with these in place of those that are ours."""
    others = {key: value for key, value in metadata.items() if not key.startswith(OWN_PREFIX)}
    return {**others, **own}
