"""The inputs of a prediction: the settings as resolved, and what each result is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import shapely

from qprd.bundle.names import INFO_FILE, MODEL_FILE
from qprd.checked import Rule
from qprd.errors import QprdError
from qprd.evaluation.operating_point import NoThreshold, choose_threshold
from qprd.files.filestate import sha256_of
from qprd.files.layout import ProjectLayout
from qprd.given_settings import stored_train_config
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.project import Annotation, Entry, Project
from qprd.results.folder import is_complete, load_slide_result
from qprd.results.freshness import (
    OTHER_VERSION,
    RESULT_FORMAT,
    Freshness,
    MadeFrom,
    compare,
    digest,
)
from qprd.sampling.drawn import drawn_tissue
from qprd.settings import PredictConfig, TrainConfig
from qprd.slides.fingerprint import file_state, fingerprint
from qprd.slides.slide import Slide

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

#: Settings that are the training's where the prediction has none.
_TISSUE_SETTINGS = ("min_tissue", "tissue_min_area_um2", "tissue_max_gap_um2", "tissue_class")


class Inputs:
    """What the results of a prediction depend on; needs no torch.

    Args:
        bundle: The bundle's folder.
        info: Its description.
        config: Settings of the prediction.

    Attributes:
        threshold: Raw score from which tissue counts as tumor; None if there is none.
        tissue_rules: What counts as tissue.

    Raises:
        QprdError: the bundle has no threshold for the operating point that was asked for.
    """

    def __init__(self, bundle: Path, info: BundleInfo, config: PredictConfig) -> None:
        self._bundle = bundle
        self._config = config
        self._info = info
        self.threshold = threshold_in_use(config, info)
        trained = stored_train_config(info.training.config, where=info.name)
        asked = {name: getattr(config, name) for name in _TISSUE_SETTINGS}
        self.tissue_rules: TrainConfig = trained.model_copy(
            update={name: value for name, value in asked.items() if value not in (None, ())}
        )

    def made_from(
        self, slide: Slide, annotations: Sequence[Annotation], entry: Entry | None = None
    ) -> MadeFrom:
        """What a result of this slide is made from.

        Args:
            slide: The slide.
            annotations: Its annotations.
            entry: The entry that it was opened for, if there is one.

        Raises:
            QprdError: the slide cannot be read.
        """
        return MadeFrom(
            self._of_bundle,
            self._of_settings,
            _of_slide(slide),
            _of_tissue(annotations, slide.width, slide.height, self.tissue_rules.tissue_class),
            "" if entry is None else self._of_file(entry, self._config.assume_mpp),
            self._of_scoring,
        )

    def freshness(self, project: Project, entry: Entry, *, any_settings: bool = False) -> Freshness:
        """Judge the result of an entry.

        The slide is opened only if its file or what the project says of it has changed. A result
        counts as stale if its slide or its annotations cannot be read.

        Args:
            project: The project.
            entry: The entry.
            any_settings: Whether it may have been made with other settings than these.
        """
        folder = ProjectLayout(project.path).result(entry.id)
        try:
            result = load_slide_result(folder)
        except QprdError:
            return Freshness("missing")
        if not is_complete(folder):
            return Freshness("missing")
        if (known := result.made_from) is None:
            return Freshness("stale", OTHER_VERSION)
        of_others = any_settings and known.settings != self._of_settings
        now = replace(
            known,
            bundle=self._of_bundle,
            settings=known.settings if of_others else self._of_settings,
            scores=self._of_scoring,
            format=RESULT_FORMAT,
        )
        found = compare(known, now)
        if not (found.is_fresh or found.keeps_scores):
            return found
        assumed = (result.mpp, None) if of_others else (self._config.assume_mpp,)
        try:
            if known.file not in (self._of_file(entry, mpp) for mpp in assumed):
                with open_slide(entry, assume_mpp=assumed[0]) as slide:
                    now = replace(now, slide=_of_slide(slide))
            names = result.tissue_class if of_others else self.tissue_rules.tissue_class
            # Earlier versions did not record the classes.
            if names is not None:
                annotations = project.annotations(entry) if names else ()
                size = result.frame.width, result.frame.height
                now = replace(now, tissue=_of_tissue(annotations, *size, names))
        except QprdError as error:
            return Freshness("stale", error.problem)
        return compare(known, now)

    def is_made_with(self, made_from: MadeFrom) -> bool:
        """Whether a result was made with these settings."""
        return made_from.settings == self._of_settings

    @cached_property
    def _of_bundle(self) -> str:
        return digest([sha256_of(self._bundle / name) for name in (INFO_FILE, MODEL_FILE)])

    @cached_property
    def _settings(self) -> dict[str, object]:
        config, rules = self._config, self.tissue_rules
        return {
            "threshold": self.threshold,
            "stride": config.stride or self._info.network.patch_px // 2,
            "slide_score": config.slide_score,
            "min_area_um2": config.min_area_um2,
            "tolerance_um": config.tolerance_um,
            # As given: what each device makes of "auto" differs too little to score again.
            "precision": config.precision,
            **{name: getattr(rules, name) for name in _TISSUE_SETTINGS},
        }

    @cached_property
    def _of_settings(self) -> str:
        return digest(self._settings)

    @cached_property
    def _of_scoring(self) -> str:
        names = ("stride", "precision", *_TISSUE_SETTINGS)
        return digest({name: self._settings[name] for name in names})

    @staticmethod
    def _of_file(entry: Entry, assume_mpp: float | None) -> str:
        source = entry.source
        if source.path is None:
            return "missing"
        known = (source.rotation, source.crop, source.use_bounds, source.mpp)
        return digest((file_state(source.path), known, assume_mpp))


def _of_slide(slide: Slide) -> str:
    return digest((fingerprint(slide.path), asdict(slide.frame), slide.mpp))


def threshold_in_use(config: PredictConfig, info: BundleInfo) -> float | None:
    """The threshold that was asked for: a number, the bundle's, or that of another rule.

    Raises:
        QprdError: the bundle does not hold what the rule chooses from.
    """
    if config.threshold != "auto":
        return config.threshold
    if config.operating_point is None:
        return info.scoring.threshold
    chosen: float | NoThreshold = NoThreshold("it was trained by an earlier qprd")
    if info.scoring.validation is not None:
        rule = Rule.parse(config.operating_point)
        chosen = choose_threshold(rule, info.scoring.validation)
    elif info.scoring.threshold is None:
        chosen = NoThreshold("no validation patches")
    if isinstance(chosen, NoThreshold):
        raise QprdError(
            f"The bundle has no threshold for {config.operating_point}: {chosen.reason}.",
            where=info.name,
            fix=f"Train with --operating-point {config.operating_point}, or give --threshold.",
        )
    return chosen


def _of_tissue(
    annotations: Sequence[Annotation], width: int, height: int, names: Sequence[str]
) -> str:
    """Digest of what is drawn as tissue; empty if no class is tissue."""
    if not names:
        return ""
    drawn, _ = drawn_tissue(annotations, width, height, names)
    # One outline has the digest that results before it have: that of a polygon.
    one = drawn.geoms[0] if len(drawn.geoms) == 1 else drawn
    return digest(shapely.to_wkb(shapely.normalize(one), hex=True))
