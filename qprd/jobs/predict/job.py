"""``qprd predict``: from a bundle and the slides of a project to results and pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from qprd.checked import Rule
from qprd.errors import QprdError
from qprd.evaluation.operating_point import NoThreshold, achieved_at, choose_threshold
from qprd.files.layout import ProjectLayout
from qprd.jobs.predict.index import write_results_index
from qprd.jobs.predict.review_regions import (
    MarkedRegion,
    mark_uncertain,
    require_threshold,
    told_regions,
)
from qprd.jobs.write_back import WriteBackSummary, write_back_entries
from qprd.predictions import (
    OWN_CLASS_SUFFIX,
    PROBABILITY,
    SCORE,
    Detections,
    PredictedContour,
    PredictedTile,
    Predictions,
    ScoreMap,
    class_parts,
    contour_name,
    object_id,
)
from qprd.progress import Progress
from qprd.qupath.entry_slides import open_slide, select_entries, slide_mpp
from qprd.qupath.project import Entry, Project
from qprd.results.contours import contour_measurements, contours
from qprd.results.detections import detections
from qprd.results.folder import SlideResult, save_result
from qprd.sampling.build import MAGNIFIED
from qprd.scoring.scorer import SlideScorer
from qprd.settings import PredictConfig, SlideScore, stored_train_config
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.bundle.bundle import BundleInfo
    from qprd.model.frd import FRD

#: Longer edge of the thumbnail in the pictures.
_THUMBNAIL_PX = 1600


@dataclass(frozen=True)
class PredictSummary:
    """What a prediction did.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: The bundle's folder.
        threshold: Raw score that was used; None if there is none.
        slides: Figures of each slide that was scored.
        problems: Image name and reason of each slide that was not.
        notes: What the user should know of the others.
        index: The page with all pictures.
        write_back: What was written into the project, None if that was not asked for.
        seconds: Time spent.
        review: Regions marked for review, in their order.
    """

    project: Path
    backend: str
    bundle: Path
    threshold: float | None
    slides: tuple[SlideResult, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    index: Path
    write_back: WriteBackSummary | None
    seconds: float
    review: tuple[MarkedRegion, ...] = ()

    @property
    def failed(self) -> int:
        """Slides that could not be scored or written back."""
        return len(self.problems) + (self.write_back.failed if self.write_back else 0)

    def lines(self) -> list[str]:
        """The summary for people."""
        lines = []
        for slide in self.slides:
            score = "no tissue" if slide.slide_score is None else f"score {slide.slide_score:.3f}"
            lines.append(
                f"{slide.image}: {score}, {slide.contours} contours, "
                f"{slide.tumor_um2 / 1e6:.2f} of {slide.tissue_um2 / 1e6:.2f} mm² tissue"
            )
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem}" for problem in self.problems]
        if self.threshold is None:
            lines.append(
                "The bundle has no threshold, so there are no contours: give --threshold or "
                "--operating-point."
            )
        lines.append(f"Predicted {len(self.slides)} slides in {self.seconds:.0f} s.")
        if self.review:
            lines.append(told_regions(self.review))
        if self.write_back is not None:
            lines += self.write_back.lines()
        lines.append(f"Pictures: {self.index}")
        return lines


def predict_project(
    project: Project,
    config: PredictConfig,
    *,
    bundle: Path | None = None,
    write_back: bool = False,
    progress: Progress,
) -> PredictSummary:
    """Score the slides of a project, save results and pictures, then write them back if asked.

    A slide that cannot be read is reported, and the others go on.

    Args:
        project: Changed only by the write-back.
        config: Settings.
        bundle: The model; None takes the newest in the project.
        write_back: Put the results into the project at the end.
        progress: Shows what takes long.

    Raises:
        QprdError: nothing could be predicted at all.
    """
    from qprd.bundle.bundle import load_bundle, newest_bundle
    from qprd.device import make_fabric
    from qprd.model.inference import for_inference

    started = time.perf_counter()
    layout = ProjectLayout(project.path)
    layout.require_writable()
    folder = newest_bundle(layout.bundles) if bundle is None else bundle
    entries = select_entries(project, config.images)
    fabric = make_fabric(config.device, config.precision)
    weights = None if config.weights is None else Path(config.weights)
    model, info = load_bundle(folder, weights=weights, device=fabric.device)
    model = for_inference(model)  # and let go of the plain one: weights may be most of the memory
    predictor = _Predictor(model, info, config, fabric, progress)
    require_threshold(config.uncertain, predictor.threshold)

    problems: list[str] = []
    scored: list[Entry] = []
    results: list[SlideResult] = []
    for entry in entries:
        try:
            results.append(predictor.run(entry, layout.result(entry.id)))
            scored.append(entry)
        except QprdError as error:
            problems.append(error.told_of(entry.name))
    if not scored:
        raise QprdError(
            "None of the slides could be predicted.\n  " + "\n  ".join(problems[:10]),
            where=str(project.path),
        )
    marked: tuple[MarkedRegion, ...] = ()
    if config.uncertain and predictor.threshold is not None:
        marked = mark_uncertain(
            project,
            scored,
            predictor.info,
            predictor.threshold,
            config.uncertain,
            assume_mpp=config.assume_mpp,
            progress=progress,
        )
        if len(marked) < config.uncertain:
            predictor.notes.append(
                f"only {len(marked)} of {config.uncertain} regions to review can be had: the rest "
                "of the tissue is labeled, or too close to them"
            )
    index = write_results_index(
        layout, predictor.info, threshold=predictor.threshold, date=predictor.date
    )
    written = None
    if write_back:
        written = write_back_entries(project, scored, command="predict", progress=progress)
    return PredictSummary(
        project=project.path,
        backend=project.backend,
        bundle=folder,
        threshold=predictor.threshold,
        slides=tuple(results),
        problems=tuple(problems),
        notes=tuple(predictor.notes),
        index=index,
        write_back=written,
        seconds=time.perf_counter() - started,
        review=marked,
    )


class _Predictor:
    """One model at work on one slide after the other."""

    def __init__(
        self,
        model: FRD,
        info: BundleInfo,
        config: PredictConfig,
        fabric: Fabric,
        progress: Progress,
    ) -> None:
        exact = config.exact or info.dense is None
        info = info.scored(exact=exact)
        self.info = info
        self._exact = exact
        self._config = config
        self._probability_of = None if info.calibration is None else info.calibration.probability
        trained = stored_train_config(info.config, where=info.name)
        self._tumor_class = trained.tumor_class[0]
        asked = config.min_tissue
        self._scorer = SlideScorer(
            model,
            mpp=info.mpp,
            patch_px=info.patch_px,
            patch_score=info.patch_score,
            min_tissue=trained.min_tissue if asked is None else asked,
            batch_size=config.batch_size,
            fabric=fabric,
            progress=progress,
            exact=exact,
            stride=config.stride,
        )
        self.notes = [*no_probability(info), *patch_by_patch(info, config)]
        self.date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.threshold = threshold_in_use(config, info)
        if config.operating_point is not None and info.validation is not None:
            assert self.threshold is not None
            self.notes.append(
                f"operating point {config.operating_point}: threshold {self.threshold:.3f}, on the "
                f"validation data that chose it {achieved_at(self.threshold, info.validation)}"
            )

    def run(self, entry: Entry, folder: Path) -> SlideResult:
        """Score one slide and save its results."""
        started = time.perf_counter()
        with open_slide(entry, assume_mpp=self._config.assume_mpp) as slide:
            if slide_mpp(slide) > self.info.mpp * MAGNIFIED:
                self.notes.append(
                    f"{entry.name}: {slide_mpp(slide):.3g} um/px is coarser than the model's "
                    f"{self.info.mpp:.3g} um/px; its scores are less to be trusted"
                )
            score_map = self._scorer.score(entry.name, slide, tissue_mask(slide))
            slide_score = summarize(score_map, self._config.slide_score)
            predictions = self._predictions(entry, slide, score_map, slide_score)
            probabilities = None
            if self._probability_of is not None:
                probabilities = self._probability_of(score_map.scores)
            found = detections(score_map, probabilities)
            # Cells at the right and lower edge may have their centers beyond it.
            x, y = np.minimum(found.x, slide.width), np.minimum(found.y, slide.height)
            overview = self._overview(entry, slide, score_map, predictions, slide_score)
        um2 = score_map.mpp**2
        tumor_px2 = sum(contour.polygon.area for contour in predictions.contours)
        result = SlideResult(
            entry_id=entry.id,
            image=entry.name,
            bundle=self.info.name,
            created=self.date,
            slide_score=slide_score,
            threshold=self.threshold,
            tissue_um2=len(predictions.tiles) * score_map.cell_px**2 * um2,
            tumor_um2=tumor_px2 * um2,
            tiles=len(predictions.tiles),
            contours=len(predictions.contours),
            mpp=score_map.mpp,
            seconds=time.perf_counter() - started,
            frame=slide.frame,
            exact=self._exact,
        )
        save_result(
            folder,
            result,
            score_map,
            predictions,
            probabilities=probabilities,
            detections=Detections(found.scores, x, y),
            overview=overview,
        )
        return result

    def _predictions(
        self, entry: Entry, slide: Slide, score_map: ScoreMap, slide_score: float | None
    ) -> Predictions:
        polygons = []
        if self.threshold is not None:
            polygons = contours(
                score_map,
                self.threshold,
                min_area_um2=self._config.min_area_um2,
                min_hole_um2=self._config.min_area_um2,
                tolerance_um=self._config.tolerance_um,
                probability_of=self._probability_of,
            )
        least_px2 = self._config.min_area_um2 / score_map.mpp**2
        polygons = inside_image(polygons, slide.width, slide.height, least_px2=least_px2)
        own = [
            PredictedContour(
                object_id(self.info.name, entry.id, "contour", index),
                polygon,
                contour_name(index + 1),
                contour_measurements(score_map, polygon, self._probability_of),
            )
            for index, polygon in enumerate(polygons)
        ]
        metadata = {
            "qprd: bundle": self.info.name,
            "qprd: date": self.date,
        }
        if slide_score is not None:
            metadata["qprd: slide score"] = f"{slide_score:.4f}"
        if self.threshold is not None:
            metadata["qprd: threshold"] = f"{self.threshold:.4f}"
        return Predictions(
            tiles=self._tiles(entry, score_map),
            contours=tuple(own),
            contour_class=": ".join((*class_parts(self._tumor_class), OWN_CLASS_SUFFIX)),
            metadata=metadata,
        )

    def _tiles(self, entry: Entry, score_map: ScoreMap) -> tuple[PredictedTile, ...]:
        cells = np.argwhere(~np.isnan(score_map.scores))
        scores = score_map.scores[cells[:, 0], cells[:, 1]].astype(np.float64)
        measured = {SCORE: scores}
        if self._probability_of is not None:
            measured[PROBABILITY] = self._probability_of(scores)
        return tuple(
            PredictedTile(
                object_id(self.info.name, entry.id, "tile", index),
                score_map.x + column * score_map.cell_px,
                score_map.y + row * score_map.cell_px,
                score_map.cell_px,
                {name: float(values[index]) for name, values in measured.items()},
            )
            for index, (row, column) in enumerate(cells.tolist())
        )

    def _overview(
        self,
        entry: Entry,
        slide: Slide,
        score_map: ScoreMap,
        predictions: Predictions,
        slide_score: float | None,
    ) -> bytes:
        from qprd.review.heatmap import heatmap_png

        thumbnail, downsample = slide.thumbnail(_THUMBNAIL_PX)
        return heatmap_png(
            thumbnail,
            downsample,
            score_map,
            [contour.polygon for contour in predictions.contours],
            threshold=self.threshold,
            title=entry.name,
            slide_score=slide_score,
            probability_of=self._probability_of,
            raw_range=None if self.info.validation is None else self.info.validation.range,
        )


def threshold_in_use(config: PredictConfig, info: BundleInfo) -> float | None:
    """The threshold that was asked for: a number, the bundle's, or that of another rule.

    Raises:
        QprdError: the bundle does not hold what the rule chooses from.
    """
    if config.threshold != "auto":
        return config.threshold
    if config.operating_point is None:
        return info.threshold
    chosen: float | NoThreshold = NoThreshold("it was trained by an earlier qprd")
    if info.validation is not None:
        chosen = choose_threshold(Rule.parse(config.operating_point), info.validation)
    elif info.threshold is None:
        chosen = NoThreshold("no validation patches")
    if isinstance(chosen, NoThreshold):
        raise QprdError(
            f"The bundle has no threshold for {config.operating_point}: {chosen.reason}.",
            where=info.name,
            fix=f"Train with --operating-point {config.operating_point}, or give --threshold.",
        )
    return chosen


def no_probability(info: BundleInfo) -> list[str]:
    """Why a bundle gives raw scores only, for the user; empty if it gives probabilities."""
    if info.calibration is not None:
        return []
    reason = info.metrics.get("no_probability")
    why = f": {reason}" if isinstance(reason, str) else ""
    return [f"the bundle gives raw scores and no probabilities{why}"]


def patch_by_patch(info: BundleInfo, config: PredictConfig) -> list[str]:
    """Why slides are scored the slow way without having been asked to, for the user."""
    if config.exact or info.dense is not None:
        return []
    return [
        "slides are scored patch by patch, which is slower: the bundle has no threshold and "
        "probability for scores from large fields. It was trained with --exact, by an earlier "
        "qprd, or with a teacher that needs it"
    ]


def summarize(score_map: ScoreMap, how: SlideScore) -> float | None:
    """The slide score: maximum, 99th percentile or mean of the map; None without tissue."""
    scores = score_map.scores[~np.isnan(score_map.scores)]
    if not scores.size:
        return None
    if how == "p99":
        return float(np.percentile(scores, 99))
    return float(scores.max() if how == "max" else scores.mean(dtype=np.float64))


def inside_image(
    polygons: Sequence[shapely.Polygon], width: int, height: int, *, least_px2: float = 0.0
) -> list[shapely.Polygon]:
    """Clip polygons to the image: cells at its right and lower edge may reach beyond it.

    Args:
        polygons: Level-0 pixels.
        width: Of the image.
        height: Likewise.
        least_px2: Pieces smaller than this are dropped.
    """
    image = shapely.box(0, 0, width, height)
    clipped: list[shapely.Polygon] = []
    for polygon in polygons:
        if image.covers(polygon):
            clipped.append(polygon)
        else:
            parts = shapely.get_parts(polygon.intersection(image))
            clipped += [
                part
                for part in parts
                if isinstance(part, shapely.Polygon) and 0 < part.area >= least_px2
            ]
    return clipped
