"""The scores of one slide, and what is made of them: contours, a picture, files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from qprd.errors import QprdError
from qprd.events import emit
from qprd.given_settings import stored_train_config
from qprd.predictions import LesionPoints, ScoreMap
from qprd.qupath.project import Entry
from qprd.results.contours import ProbabilityOf, contours
from qprd.results.folder import RESULT_FILES, SlideResult, save_result
from qprd.results.freshness import MadeFrom
from qprd.results.lesion_points import lesion_points
from qprd.results.objects import predicted_objects
from qprd.scoring.unscored import Unscored
from qprd.settings import PredictConfig
from qprd.slides.frame import Frame
from qprd.slides.tissue import TissueMask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qprd.bundle.records import BundleInfo


@dataclass(frozen=True)
class SlideScores:
    """The scores of one slide.

    Attributes:
        entry_id: Its project entry; outside a project the slide's name.
        score_map: Raw scores and the grid they lie on.
        threshold: Raw score from which tissue counts as tumor; None if the model has none.
        slide_score: Raw score that sums up the map; None without tissue.
        fingerprint: Of the slide's file.
        made_from: What else the scores depend on.
        frame: Size of the slide, and how it lies in its file.
        thumbnail: uint8, (height, width, 3), the whole slide.
        downsample: Level-0 pixels per pixel of the thumbnail.
        tissue: Where tissue was found.
        unscored: What of the slide is neither glass nor scored.
        model: The bundle that scored it.
        config: Settings of the prediction.
        created: When, ISO 8601, UTC.
        tissue_class: Classes whose annotations outline tissue.

    Examples:
        >>> found = model.score("demo/slides/demo_4.tif")
        >>> found.probability.shape == found.scores.shape
        True
        >>> tumor_um2 = sum(polygon.area for polygon in found.contours()) * found.mpp**2
        >>> axes = found.plot()
        >>> found.save("out")
    """

    image: str
    entry_id: str
    score_map: ScoreMap = field(repr=False)
    threshold: float | None
    slide_score: float | None
    fingerprint: str = field(repr=False)
    made_from: MadeFrom = field(repr=False)
    frame: Frame = field(repr=False)
    thumbnail: NDArray[np.uint8] = field(repr=False)
    downsample: float = field(repr=False)
    tissue: TissueMask = field(repr=False)
    unscored: Unscored = field(repr=False)
    model: BundleInfo = field(repr=False)
    config: PredictConfig = field(repr=False)
    created: str = field(repr=False)
    seconds: float = field(repr=False)
    tissue_class: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> NDArray[np.float32]:
        """Raw scores, (rows, columns), higher is more like tumor; NaN where nothing was scored."""
        return self.score_map.scores

    @property
    def probability(self) -> NDArray[np.float64]:
        """Probability of tumor, (rows, columns), 0..1; NaN where nothing was scored.

        Raises:
            QprdError: the model was trained without validation patches of both classes.
        """
        if self.probability_of is None:
            raise QprdError(
                "The model gives raw scores and no probabilities.",
                where=self.model.name,
                fix="Use the scores, or train with a validation slide that has tumor and normal.",
            )
        return self.probability_of(self.scores)

    @property
    def cell_px(self) -> float:
        """Edge of a cell of the map in level-0 pixels."""
        return self.score_map.cell_px

    @property
    def mpp(self) -> float:
        """Micrometers per level-0 pixel."""
        return self.score_map.mpp

    @property
    def probability_of(self) -> ProbabilityOf | None:
        """Turns raw scores into probabilities; None if the model has no calibration."""
        return self.model.scoring.probability_of

    @property
    def slide_probability(self) -> float | None:
        """The probability of `slide_score`; None without tissue or without a calibration."""
        if self.slide_score is None or self.probability_of is None:
            return None
        return float(self.probability_of(np.array([self.slide_score]))[0])

    def contours(
        self,
        threshold: float | None = None,
        *,
        min_area_um2: float | None = None,
        tolerance_um: float | None = None,
    ) -> list[Polygon]:
        """Outline the tumor: shapely polygons in level-0 pixels, the largest first.

        Args:
            threshold: Raw score from which tissue counts as tumor; None takes the model's.
            min_area_um2: Smaller contours, and holes, are dropped; None takes the setting.
            tolerance_um: How far a simplified outline may be from the exact one; None, too.

        Raises:
            QprdError: there is no threshold.
        """
        if threshold is None:
            threshold = self.threshold
        if threshold is None:
            raise QprdError(
                "The model has no threshold, and so there are no contours.",
                where=self.model.name,
                fix="Give a raw score: contours(threshold=1.0).",
            )
        area_um2 = self.config.min_area_um2 if min_area_um2 is None else min_area_um2
        return contours(
            self.score_map,
            threshold,
            (self.frame.width, self.frame.height),
            min_area_um2=area_um2,
            tolerance_um=self.config.tolerance_um if tolerance_um is None else tolerance_um,
            probability_of=self.probability_of,
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the slide, its scores over it as colors, and the contours.

        Args:
            axes: Where to draw; None takes pyplot's current axes, which notebooks show.

        Returns:
            The axes, in level-0 pixels.
        """
        from qprd.review.heatmap import draw_heatmap

        if axes is None:
            import matplotlib.pyplot as plt

            axes = plt.gca()
        drawn = draw_heatmap(
            axes,
            self.thumbnail,
            self.downsample,
            self.score_map,
            [] if self.threshold is None else self.contours(),
            threshold=self.threshold,
            probability_of=self.probability_of,
            raw_range=self._raw_range,
            unscored=self.unscored,
        )
        axes.set_aspect("equal")
        axes.set_title(self.image, parse_math=False)
        label = "raw score" if self.probability_of is None else "probability of tumor"
        axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.8)
        return axes

    def save(self, folder: str | Path) -> None:
        """Write what ``qprd predict`` writes for a slide into a folder of its own.

        ``score_map.npz`` and ``score_map.ome.tif`` hold the map, ``predictions.geojson`` tiles and
        contours, ``detections.csv`` lesion points, ``slide.json`` figures, and ``overview.png``
        is a picture.

        Args:
            folder: New, empty, or with earlier results, which are replaced.

        Raises:
            QprdError: other files are in the folder, or it cannot be written.
        """
        folder = Path(folder)
        if folder.is_dir():
            foreign = sorted({path.name for path in folder.iterdir()} - RESULT_FILES)
            if foreign:
                raise QprdError(
                    f"The folder holds other files, such as {foreign[0]}.",
                    where=str(folder),
                    fix="Give each slide a new folder.",
                )
        save_slide(self, folder)

    @property
    def _raw_range(self) -> tuple[float, float] | None:
        validation = self.model.scoring.validation
        return None if validation is None else validation.range


def save_slide(found: SlideScores, folder: Path) -> SlideResult:
    """Write the results of a slide; whatever is in the folder is replaced."""
    from qprd.review.figures import figure_png
    from qprd.review.overview import overview_figure

    score_map, um2 = found.score_map, found.mpp**2
    polygons = [] if found.threshold is None else found.contours()
    trained = stored_train_config(found.model.training.config, found.model.name)
    predictions = predicted_objects(
        score_map,
        polygons,
        bundle=found.model.name,
        entry_id=found.entry_id,
        size=(found.frame.width, found.frame.height),
        tumor_class=trained.tumor_class[0],
        probability_of=found.probability_of,
        metadata={},
    )
    probabilities = None if found.probability_of is None else found.probability
    points = lesion_points(score_map, probabilities)
    result = SlideResult(
        entry_id=found.entry_id,
        image=found.image,
        bundle=found.model.name,
        created=found.created,
        slide_score=found.slide_score,
        slide_probability=found.slide_probability,
        threshold=found.threshold,
        tissue_um2=len(predictions.tiles) * found.cell_px**2 * um2,
        tumor_um2=sum(polygon.area for polygon in polygons) * um2,
        tiles=len(predictions.tiles),
        contours=len(polygons),
        mpp=found.mpp,
        seconds=found.seconds,
        frame=found.frame,
        scoring=found.model.scoring.by,
        unscored_mm2=found.unscored.areas_mm2,
        notes=found.notes,
        fingerprint=found.fingerprint,
        made_from=found.made_from,
        min_area_um2=found.config.min_area_um2,
        tolerance_um=found.config.tolerance_um,
        tissue_class=found.tissue_class,
    )
    save_result(
        folder,
        result,
        score_map,
        replace(predictions, metadata=result.metadata),
        probabilities=probabilities,
        tissue=found.tissue,
        # Cells at the right and lower edge may have their centers beyond it.
        lesion_points=LesionPoints(
            points.scores,
            np.minimum(points.x, found.frame.width),
            np.minimum(points.y, found.frame.height),
        ),
        overview=figure_png(
            overview_figure(
                found.thumbnail,
                found.downsample,
                score_map,
                polygons,
                threshold=found.threshold,
                title=found.image,
                slide_score=found.slide_score,
                probability_of=found.probability_of,
                raw_range=found._raw_range,
                unscored=found.unscored,
            )
        ),
    )
    log_slide(result, "scored")
    return result


def log_slide(result: SlideResult, state: Literal["scored", "up to date"]) -> None:
    """Tell whoever listens that a slide has its results."""
    emit(
        "slide",
        image=result.image,
        entry=result.entry_id,
        state=state,
        slide_score=result.slide_score,
        contours=result.contours,
        seconds=round(result.seconds, 3),
    )


def log_failure(entry: Entry, problem: str) -> None:
    """Tell whoever listens that a slide could not be scored."""
    emit("slide", image=entry.name, entry=entry.id, state="failed", problem=problem)
