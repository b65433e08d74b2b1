"""Results on disk: one folder per entry, written whole or not at all.

- ``score_map.npz``: raw scores, their grid, and what the slide shows where (`Surface`)
- ``score_map.ome.tif``: the same as an image, of probabilities if there are any
- ``predictions.geojson``: tiles and contours, which QuPath takes by drag and drop
- ``review.geojson``: review regions, with ``--uncertain``
- ``detections.csv``: score, x and y of the lesion points
- ``slide.json``: `SlideResult`
- ``overview.png``: the picture

What loads a result raises `QprdError` if there is none, or if it is damaged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from qprd.errors import QprdError
from qprd.files.atomic import replacing, replacing_folder, write_errors
from qprd.files.jsonfile import read_text
from qprd.predictions import (
    BUNDLE,
    DATE,
    SLIDE_PROBABILITY,
    SLIDE_SCORE,
    THRESHOLD,
    LesionPoints,
    PredictedAnnotation,
    Predictions,
    ReviewRegion,
    ScoreMap,
)
from qprd.qupath.entry_slides import recorded_name
from qprd.qupath.geojson import read_root
from qprd.qupath.predictions_geojson import predictions_from_geojson, predictions_to_text
from qprd.results.arrays import SCORE_MAP, damaged, load_score_map, missing, save_arrays
from qprd.results.freshness import MadeFrom
from qprd.results.tiff import write_score_tiff
from qprd.settings import Scoring
from qprd.slides.fingerprint import Fingerprint, SlideIdentity
from qprd.slides.frame import Frame
from qprd.slides.tissue import TissueMask

SCORE_TIFF = "score_map.ome.tif"
PREDICTIONS = "predictions.geojson"
REVIEW = "review.geojson"
LESION_POINTS = "detections.csv"
SLIDE = "slide.json"
OVERVIEW = "overview.png"
#: All files of a result.
RESULT_FILES = frozenset(
    {SCORE_MAP, SCORE_TIFF, PREDICTIONS, REVIEW, LESION_POINTS, SLIDE, OVERVIEW}
)

_POINTS_HEADER = "score,x,y"
#: Room for more than a million lesion points.
_MAX_POINTS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SlideResult:
    """Figures of one slide's prediction.

    Attributes:
        bundle: Name of the bundle that predicted.
        created: When it was made, ISO 8601, UTC.
        slide_score: Raw score of the slide as a whole, without bounds; None without tissue.
        slide_probability: The probability that the calibration gives it; None without one.
        threshold: Raw score at and above which tissue is called tumor; None if there was none.
        tissue_um2: Area of the scored tiles.
        tumor_um2: Area of the contours.
        mpp: Micrometers per level-0 pixel.
        frame: Which part of the file the image was, and how it was rotated: coordinates hold in
            this frame alone.
        scoring: Scored from large fields, or patch by patch.
        unscored_mm2: Areas that are neither glass nor scored, by cause: ``pen``, ``dark``,
            ``small_pieces``, ``outside_drawn_tissue``, ``little_tissue_in_cell``, ``border``;
            empty in results of an earlier qprd.
        fingerprint: Fingerprint of the slide's file; this and what follows are None in results of
            an earlier qprd.
        made_from: What the result depends on.
        min_area_um2: Smallest contour, and smallest hole in one.
        tolerance_um: How far the contours may be from the exact ones.
        tissue_class: Classes whose annotations outlined the tissue.
    """

    entry_id: str
    image: str
    bundle: str
    created: str
    slide_score: float | None
    threshold: float | None
    tissue_um2: float
    tumor_um2: float
    tiles: int
    contours: int
    mpp: float
    seconds: float
    frame: Frame
    scoring: Scoring = "fields"
    unscored_mm2: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: Fingerprint | None = None
    made_from: MadeFrom | None = None
    slide_probability: float | None = None
    min_area_um2: float | None = None
    tolerance_um: float | None = None
    tissue_class: tuple[str, ...] | None = None

    @property
    def score_text(self) -> str:
        """The slide's score in words, with its probability if there is one."""
        if self.slide_score is None:
            return "no tissue"
        if self.slide_probability is None:
            return f"raw score {self.slide_score:.3f} (no fixed range)"
        return f"score {self.slide_score:.3f} (probability {self.slide_probability:.3f})"

    @property
    def slide(self) -> SlideIdentity:
        """The slide that was predicted."""
        return SlideIdentity.of(recorded_name(self.image), self.fingerprint, self.frame)

    @property
    def metadata(self) -> dict[str, str]:
        """What QuPath gets as entry metadata."""
        metadata = {BUNDLE: self.bundle, DATE: self.created}
        if self.slide_score is not None:
            metadata[SLIDE_SCORE] = f"{self.slide_score:.4f}"
        if self.slide_probability is not None:
            metadata[SLIDE_PROBABILITY] = f"{self.slide_probability:.4f}"
        if self.threshold is not None:
            metadata[THRESHOLD] = f"{self.threshold:.4f}"
        return metadata


_SLIDE_RESULTS = TypeAdapter(SlideResult)


def save_result(
    folder: Path,
    slide: SlideResult,
    score_map: ScoreMap,
    predictions: Predictions,
    *,
    probabilities: NDArray[np.float64] | None,
    lesion_points: LesionPoints,
    overview: bytes,
    tissue: TissueMask | None = None,
) -> None:
    """Write one entry's results; an earlier result stays until the new one is complete.

    The probabilities are (rows, columns), 0..1, NaN where the scores are, or None without a
    calibration; the overview is a PNG.

    Raises:
        QprdError: The disk is full or the folder cannot be written; the earlier result is intact.
    """
    with write_errors("The results", folder), replacing_folder(folder) as partial:
        save_arrays(partial, score_map, tissue)
        write_score_tiff(partial / SCORE_TIFF, score_map, probabilities, image=slide.image)
        text = predictions_to_text(predictions)
        (partial / PREDICTIONS).write_text(text, encoding="utf-8")
        (partial / LESION_POINTS).write_text(_points_to_text(lesion_points), encoding="utf-8")
        (partial / SLIDE).write_text(json.dumps(asdict(slide), indent=2), encoding="utf-8")
        (partial / OVERVIEW).write_bytes(overview)


def keep_earlier(folder: Path, earlier: Path, bundle: str) -> None:
    """Keep the score map and the figures of a result that one of this bundle will replace.

    The folder ``earlier`` holds no more than the last one. Nothing is kept of a result that is of
    the same bundle, missing or damaged.

    Raises:
        QprdError: The disk is full or the folder cannot be written.
    """
    try:
        if load_slide_result(folder).bundle == bundle:
            return
        load_score_map(folder)
    except QprdError:
        return
    with write_errors("The earlier results", earlier), replacing_folder(earlier) as partial:
        for name in (SCORE_MAP, SLIDE):
            shutil.copyfile(folder / name, partial / name)


def is_complete(folder: Path) -> bool:
    """Whether all files are there that every result has."""
    return all((folder / name).is_file() for name in RESULT_FILES - {REVIEW})


def load_slide_result(folder: Path) -> SlideResult:
    """Read the figures of one entry."""
    try:
        values = json.loads((folder / SLIDE).read_bytes())
        if isinstance(values, dict) and "scoring" not in values:
            # Earlier results say ``exact``; the first ones, patch by patch, do not even say that.
            values["scoring"] = "patches" if values.pop("exact", True) else "fields"
        return _SLIDE_RESULTS.validate_python(values)
    except OSError as error:
        raise missing(folder, error) from error
    except (ValueError, RecursionError) as error:
        raise damaged(folder / SLIDE) from error


def load_predictions(folder: Path) -> Predictions:
    """Read the tiles, contours and review regions of one entry."""
    path = folder / PREDICTIONS
    if not path.is_file():
        raise missing(folder)
    return replace(_whole(path), review=_load_review(folder))


def load_annotations(folder: Path) -> tuple[tuple[PredictedAnnotation, ...], str]:
    """Read the contours and review regions of one entry, and the class of the contours.

    The tiles, which may be a hundred times as many, are passed over.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise missing(folder)
    root, _ = read_root(path)
    if not isinstance(root, dict) or not isinstance(root.get("features"), list):
        raise damaged(path)
    features = [feature for feature in root["features"] if not _is_tile(feature)]
    found = _whole(path, {**root, "features": features})
    return (*found.contours, *_load_review(folder)), found.contour_class


def _load_review(folder: Path) -> tuple[ReviewRegion, ...]:
    return _whole(folder / REVIEW).review if (folder / REVIEW).is_file() else ()


def _whole(path: Path, root: Mapping[str, object] | None = None) -> Predictions:
    """The predictions in a file, or in what was parsed of it, if all of them can be used."""
    found = predictions_from_geojson(path if root is None else root)
    if found.unusable:
        raise damaged(path)
    return found


def _is_tile(feature: object) -> bool:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return isinstance(properties, dict) and properties.get("objectType") == "tile"


def save_review(folder: Path, regions: Sequence[ReviewRegion]) -> None:
    """Replace the review regions among the results of one entry; none leaves no file of them.

    Raises:
        QprdError: The disk is full or the folder cannot be written; the other results are intact.
    """
    with write_errors("The results", folder):
        if not regions:
            (folder / REVIEW).unlink(missing_ok=True)
            return
        text = predictions_to_text(Predictions((), (), review=tuple(regions)))
        with replacing(folder / REVIEW) as partial:
            partial.write_text(text, encoding="utf-8")


def load_lesion_points(folder: Path) -> LesionPoints:
    """Read the lesion points of one entry."""
    path = folder / LESION_POINTS
    if not path.is_file():
        raise missing(folder)
    text = read_text(path, what="a list of lesion points", limit_bytes=_MAX_POINTS_BYTES)
    header, *lines = text.splitlines() or [""]
    try:
        rows = [[float(number) for number in line.split(",")] for line in lines]
        table = np.array(rows, np.float64).reshape(len(rows), 3)
    except ValueError as error:
        raise damaged(path) from error
    if header != _POINTS_HEADER or not np.isfinite(table).all():
        raise damaged(path)
    return LesionPoints(*table.T)


def _points_to_text(points: LesionPoints) -> str:
    columns = (points.scores.tolist(), points.x.tolist(), points.y.tolist())
    rows = (f"{score!r},{x!r},{y!r}\n" for score, x, y in zip(*columns, strict=True))
    return f"{_POINTS_HEADER}\n{''.join(rows)}"
