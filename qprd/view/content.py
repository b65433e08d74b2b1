"""The content of the pages, whatever server hands them out."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import asdict

import numpy as np

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.predictions import (
    MEAN_PROBABILITY,
    MEAN_SCORE,
    OWN,
    REVIEW_CLASS,
    REVIEW_RANK,
    PredictedAnnotation,
    ReviewRegion,
    class_parts,
    is_own_class,
)
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.pathclasses import read_classes
from qprd.qupath.project import DEFAULT_COLOR, Entry, PathClass, Project
from qprd.qupath.reviews import Verdict, add_judgment, read_judgments, region_key
from qprd.results.folder import load_annotations
from qprd.results.freshness import digest
from qprd.sampling.classes import is_derived
from qprd.sampling.tissue import find_tissue_of
from qprd.scoring.unscored import find_unscored
from qprd.slides.fingerprint import file_state
from qprd.slides.slide import Slide
from qprd.view import overlays
from qprd.view.listing import slide_row, worst_mistakes
from qprd.view.predicted import NotFoundError, Predicted, Results
from qprd.view.tiles import THUMBNAIL_PX, TILE_PX, OpenSlides, as_jpeg, last_level, read_tile


class Content:
    """What the pages show of a project; may be used by several threads.

    Args:
        project: The project; only judgments are written to it.
        min_area_um2: Smaller contours are dropped, smaller holes filled.
        tolerance_um: How far simplified contours may be from the exact ones.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.
    """

    def __init__(
        self,
        project: Project,
        *,
        min_area_um2: float,
        tolerance_um: float,
        assume_mpp: float | None = None,
    ) -> None:
        self._project = project
        self._entries = {entry.id: entry for entry in project.entries()}
        self._min_area_um2 = min_area_um2
        self._tolerance_um = tolerance_um
        self._assume_mpp = assume_mpp
        self._results = Results(ProjectLayout(project.path))
        self._slides = OpenSlides()
        # A QuPath reads one image at a time.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the slides."""
        self._slides.close()

    def project(self) -> dict[str, object]:
        """The project's name, its slides in its order, and the worst mistakes."""
        entries = list(self._entries.values())
        return {
            "name": self._project.path.parent.name,
            "slides": [slide_row(entry, self._results) for entry in entries],
            "mistakes": worst_mistakes(entries, self._results),
        }

    def slide(self, entry_id: str) -> dict[str, object]:
        """All that the page of a slide needs, but pixels.

        Raises:
            QprdError: There is no such slide, or it cannot be opened.
        """
        entry = self._entry(entry_id)
        with self._open(entry) as slide:
            described: dict[str, object] = {
                "id": entry.id,
                "name": entry.name,
                "version": self._version(entry),
                "width": slide.width,
                "height": slide.height,
                "tileSize": TILE_PX,
                "lastLevel": last_level(slide.width, slide.height),
                "mpp": entry.source.mpp or self._assume_mpp,
            }
        problems = []
        try:
            described["annotations"] = self._annotations(entry)
        except QprdError as error:
            problems.append(error.line_about("Annotations"))
        try:
            described |= self._result(entry)
        except QprdError as error:
            problems.append(error.line_about("Results"))
        return {**described, "problems": problems}

    def tile(self, entry_id: str, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG.

        Raises:
            QprdError: There is none, or the slide cannot be read.
        """
        with self._open(self._entry(entry_id)) as slide:
            pixels = read_tile(slide, level, column, row)
        if pixels is None:
            raise NotFoundError("There is no such tile.")
        return as_jpeg(pixels)

    def thumbnail(self, entry_id: str) -> bytes:
        """The slide as a small JPEG.

        Raises:
            QprdError: There is no such slide, or it cannot be read.
        """
        with self._open(self._entry(entry_id)) as slide:
            return as_jpeg(slide.thumbnail(THUMBNAIL_PX)[0])

    def heatmap(self, entry_id: str) -> bytes:
        """The scores in colors as PNG.

        Raises:
            QprdError: There is no such slide or result.
        """
        entry = self._entry(entry_id)
        return overlays.heatmap_png(self._results.of(entry), self._results.score_map(entry))

    def unscored(self, entry_id: str) -> bytes:
        """What is neither glass nor scored, striped, as PNG of the whole slide.

        Tissue is found by the settings of the bundle's training.

        Raises:
            QprdError: There is no such slide or result, or the slide cannot be read.
        """
        entry = self._entry(entry_id)
        trained = self._results.of(entry).trained
        with self._lock:
            annotations = self._project.annotations(entry) if trained.tissue_class else ()
        with self._open(entry) as slide:
            tissue, _ = find_tissue_of(slide, annotations, trained)
        return overlays.stripes_png(find_unscored(tissue, self._results.score_map(entry)).mask)

    def contours(
        self, entry_id: str, *, threshold: float | None, probability: float | None
    ) -> dict[str, object]:
        """Outline the tumor at another threshold (see `qprd.view.overlays.contours_at`).

        Raises:
            QprdError: There is no such slide or result, or no threshold is given.
        """
        entry = self._entry(entry_id)
        return overlays.contours_at(
            self._results.of(entry),
            self._results.score_map(entry),
            threshold=threshold,
            probability=probability,
            min_area_um2=self._min_area_um2,
            tolerance_um=self._tolerance_um,
        )

    def judge(
        self, entry_id: str, region_id: str, verdict: Verdict, *, name: str, note: str
    ) -> list[dict[str, object]]:
        """Store a judgment.

        Args:
            entry_id: The slide.
            region_id: A contour or a review region of its results.
            verdict: What it is.
            name: Who judges.
            note: Anything else.

        Returns:
            The regions as they are judged now.

        Raises:
            QprdError: There is no such region, it has a class of the user's in QuPath, or the
                judgment cannot be written.
        """
        entry = self._entry(entry_id)
        predicted = self._results.of(entry)
        found, contour_class = load_annotations(self._results.layout.result(entry.id))
        region = next((one for one in found if one.id == region_id), None)
        if region is None:
            raise NotFoundError("There is no such region any more.", fix="Reload the page.")
        if region.id in self._classes_in_qupath(entry):
            raise QprdError(
                "This region was judged in QuPath.", fix="Change its class there, and save."
            )
        tumor = ": ".join(part for part in class_parts(contour_class) if part != OWN)
        class_name = {
            "accepted": tumor or predicted.trained.tumor_class[0],
            "rejected": predicted.trained.normal_class[0],
            "none": REVIEW_CLASS if isinstance(region, ReviewRegion) else contour_class,
        }[verdict]
        add_judgment(
            self._project.path,
            entry,
            region,
            verdict,
            path_class=PathClass(class_name, self._colors().get(class_name)),
            name=name,
            note=note,
        )
        return self._regions(entry, predicted)

    def _entry(self, entry_id: str) -> Entry:
        if entry_id not in self._entries:
            raise NotFoundError("The project has no such image.")
        return self._entries[entry_id]

    def _open(self, entry: Entry) -> AbstractContextManager[Slide]:
        # The resolution does not matter to who shows pixels.
        return self._slides.use(
            self._version(entry), lambda: open_slide(entry, assume_mpp=self._assume_mpp or 1.0)
        )

    def _version(self, entry: Entry) -> str:
        """Changes with the pixels of an entry, so that no browser keeps outdated ones."""
        path = entry.source.path
        state = None if path is None else file_state(path)
        return digest((entry.id, asdict(entry.source), state))

    def _result(self, entry: Entry) -> dict[str, object]:
        predicted, score_map = self._results.of(entry), self._results.score_map(entry)
        result, probability_of = predicted.result, predicted.probability_of
        probability = None
        if result.threshold is not None and probability_of is not None:
            probability = float(probability_of(np.array(result.threshold)))
        return {
            "mpp": result.mpp,
            "bundle": result.bundle,
            "created": result.created,
            "score": result.slide_score,
            "threshold": result.threshold,
            "probability": probability,
            "calibrated": probability_of is not None,
            "range": overlays.value_range(predicted, score_map),
            "tumorMm2": result.tumor_um2 / 1e6,
            "notes": result.notes,
            "heatmap": {
                "x": score_map.x,
                "y": score_map.y,
                "pixel": score_map.cell_px * overlays.heatmap_step(score_map.scores.shape),
            },
            "regions": self._regions(entry, predicted),
        }

    def _annotations(self, entry: Entry) -> list[dict[str, object]]:
        """What is drawn or judged, without what is only predicted."""
        with self._lock:
            drawn = self._project.annotations(entry)
        colors = self._colors()
        return [
            {
                "class": one.class_name,
                "color": colors.get(one.class_name or "", DEFAULT_COLOR),
                "rings": overlays.rings(one.geometry),
            }
            for one in drawn
            if one.fault is None and not is_own_class(one.class_name)
        ]

    def _colors(self) -> dict[str, tuple[int, int, int]]:
        known = read_classes(self._project.path)
        return {one.name: one.color for one in known if one.color is not None}

    def _classes_in_qupath(self, entry: Entry) -> dict[str, str | None]:
        """The classes that the user gave in QuPath, by id of the annotation."""
        with self._lock:
            drawn = self._project.annotations_in_qupath(entry)
        return {one.id: one.class_name for one in drawn if not is_own_class(one.class_name)}

    def _regions(self, entry: Entry, predicted: Predicted) -> list[dict[str, object]]:
        """Regions and contours in the order of review, with what was said of them."""
        found, _ = load_annotations(self._results.layout.result(entry.id))
        judged = {one.region: one for one in read_judgments(self._project.path, entry)}
        in_qupath, trained = self._classes_in_qupath(entry), predicted.trained
        regions = []
        for region in sorted(found, key=_order):
            judgment = judged.get(region_key(region))
            verdict: str = "none" if judgment is None else judgment.verdict
            if region.id in in_qupath:
                class_name = in_qupath[region.id]
                verdict = "other"
                if is_derived(class_name, trained.tumor_class):
                    verdict = "accepted"
                elif is_derived(class_name, trained.normal_class):
                    verdict = "rejected"
            measured = region.measurements
            regions.append(
                {
                    "id": region.id,
                    "rings": overlays.rings(region.polygon),
                    "score": measured.get(MEAN_SCORE),
                    "probability": measured.get(MEAN_PROBABILITY),
                    "areaMm2": region.polygon.area * predicted.result.mpp**2 / 1e6,
                    "isContour": not isinstance(region, ReviewRegion),
                    "verdict": verdict,
                    "inQuPath": region.id in in_qupath,
                    "note": "" if judgment is None else judgment.note,
                    "by": "" if judgment is None else judgment.name,
                }
            )
        return regions


def _order(region: PredictedAnnotation) -> tuple[bool, float, str]:
    """Regions by rank, then contours, those with the lowest mean first; as in ``review_next``."""
    measured = region.measurements
    if isinstance(region, ReviewRegion):
        return False, measured.get(REVIEW_RANK, np.inf), region.id
    return True, measured.get(MEAN_PROBABILITY, measured.get(MEAN_SCORE, np.inf)), region.id
