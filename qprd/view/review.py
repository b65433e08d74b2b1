"""The review in the browser: what there is to judge on a slide, and the judgments."""

from __future__ import annotations

import threading

import numpy as np

from qprd.errors import QprdError
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
from qprd.qupath.pathclasses import read_classes
from qprd.qupath.project import DEFAULT_COLOR, Entry, PathClass, Project
from qprd.qupath.reviews import Verdict, add_judgment, read_judgments, region_key
from qprd.results.folder import load_annotations
from qprd.sampling.classes import is_derived
from qprd.view import overlays
from qprd.view.predicted import NotFoundError, Predicted


class Review:
    """Regions, contours and judgments of a project; may be used by several threads.

    Args:
        project: The project; only judgments are written to it.
        lock: Held while the project is read: a QuPath reads one image at a time.
    """

    def __init__(self, project: Project, lock: threading.Lock) -> None:
        self._project = project
        self._lock = lock

    def regions(self, entry: Entry, predicted: Predicted) -> list[dict[str, object]]:
        """Regions and contours in the order of review, with their judgments.

        Raises:
            QprdError: The result is damaged, or the judgments cannot be read.
        """
        found, _ = load_annotations(predicted.folder)
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

    def judge(
        self,
        entry: Entry,
        predicted: Predicted,
        region_id: str,
        verdict: Verdict,
        *,
        name: str,
        note: str,
    ) -> list[dict[str, object]]:
        """Store a judgment of a contour or review region; gives the regions as they are judged now.

        Raises:
            QprdError: There is no such region, it has a class of the user's in QuPath, or the
                judgment cannot be written.
        """
        found, contour_class = load_annotations(predicted.folder)
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
        return self.regions(entry, predicted)

    def drawn(self, entry: Entry) -> list[dict[str, object]]:
        """What is drawn or judged, without what is only predicted.

        Raises:
            QprdError: The annotations cannot be read.
        """
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


def _order(region: PredictedAnnotation) -> tuple[bool, float, str]:
    """Regions by rank, then contours, those with the lowest mean first; as in ``review_next``."""
    measured = region.measurements
    if isinstance(region, ReviewRegion):
        return False, measured.get(REVIEW_RANK, np.inf), region.id
    return True, measured.get(MEAN_PROBABILITY, measured.get(MEAN_SCORE, np.inf)), region.id
