"""A trained model at work on slides, one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from qprd.evaluation.operating_point import achieved_at
from qprd.jobs.predict.inputs import Inputs
from qprd.jobs.predict.slide_scores import SlideScores
from qprd.predictions import ScoreMap
from qprd.progress import Progress
from qprd.qupath.project import Annotation, Entry
from qprd.sampling.tissue import find_tissue_of
from qprd.scoring.scorer import SlideScorer
from qprd.scoring.slide_score import slide_score
from qprd.scoring.unscored import find_unscored
from qprd.settings import PredictConfig
from qprd.slides.fingerprint import fingerprint
from qprd.slides.remarks import remarks
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo
    from qprd.jobs.predict.model import Model

#: Longer edge of the thumbnail in the pictures.
_THUMBNAIL_PX = 1600


class Predictor:
    """A model together with the settings of a prediction.

    Attributes:
        inputs: What the results are made from.
        threshold: Raw score from which tissue counts as tumor; None if there is none.
        notes: What the user should know, whatever the slide.

    Raises:
        QprdError: the bundle has no threshold for the operating point that was asked for.
    """

    def __init__(self, model: Model, config: PredictConfig, progress: Progress) -> None:
        self.info = info = model.info
        self._model = model
        self._config = config
        self._progress = progress
        self.inputs = Inputs(model.bundle, info, config)
        self.threshold = self.inputs.threshold
        notes = no_probability(info)
        validation = info.scoring.validation
        if config.operating_point is not None and validation is not None:
            assert self.threshold is not None
            notes.append(
                f"operating point {config.operating_point}: threshold {self.threshold:.3f}, on the "
                f"validation data that chose it {achieved_at(self.threshold, validation)}"
            )
        self.notes = tuple(notes)

    @cached_property
    def scorer(self) -> SlideScorer:
        """Loads the network, which a prediction that has nothing to score does not need.

        Raises:
            QprdError: the bundle is damaged, the teacher is another one, or there is no device.
        """
        model, info = self._model, self.info
        return SlideScorer(
            model.network,
            mpp=info.network.mpp,
            patch_px=info.network.patch_px,
            patch_score=info.scoring.patch_score,
            min_tissue=self.inputs.tissue_rules.min_tissue,
            batch_size=self._config.batch_size,
            fabric=model.fabric,
            progress=self._progress,
            scoring=info.scoring.by,
            stride=self._config.stride,
        )

    @property
    def tissue_class(self) -> tuple[str, ...]:
        """Classes whose annotations outline tissue; empty if it is found by color."""
        return self.inputs.tissue_rules.tissue_class

    def score(
        self,
        slide: Slide,
        image: str,
        entry: Entry | None = None,
        annotations: Sequence[Annotation] = (),
        score_map: ScoreMap | None = None,
    ) -> SlideScores:
        """Score one slide.

        Args:
            slide: Opened; it must have a resolution.
            image: Its name.
            entry: Its project entry; None outside a project.
            annotations: Those of a tissue class are its tissue.
            score_map: Its scores, if they are known.

        Raises:
            QprdError: the slide states no resolution or cannot be read, or its map is too large.
        """
        started = time.perf_counter()
        tissue, notes = find_tissue_of(slide, annotations, self.inputs.tissue_rules)
        if score_map is None:
            score_map = self.scorer.score(image, slide, tissue)
        thumbnail, downsample = slide.thumbnail(_THUMBNAIL_PX)
        network = self.info.network
        notes += remarks(slide, thumbnail, patch_um=network.patch_um, mpp=network.mpp)
        unscored = find_unscored(tissue, score_map)
        if (note := unscored.note()) is not None:
            notes.append(note)
        return SlideScores(
            image=image,
            entry_id=image if entry is None else entry.id,
            score_map=score_map,
            threshold=self.threshold,
            slide_score=slide_score(score_map, self._config.slide_score),
            fingerprint=fingerprint(slide.path),
            made_from=self.inputs.made_from(slide, annotations, entry),
            frame=slide.frame,
            thumbnail=thumbnail,
            downsample=downsample,
            tissue=tissue,
            unscored=unscored,
            model=self.info,
            config=self._config,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=time.perf_counter() - started,
            tissue_class=self.tissue_class,
            notes=tuple(notes),
        )


def no_probability(info: BundleInfo) -> list[str]:
    """Why a bundle gives raw scores only, for the user; empty if it gives probabilities."""
    if info.scoring.calibration is not None:
        return []
    reason = info.training.metrics.get("no_probability")
    why = f": {reason}" if isinstance(reason, str) else ""
    return [f"the bundle gives raw scores and no probabilities{why}"]
